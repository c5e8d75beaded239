"""The validation loss around alpha, on a grid in the plane of two random directions.

The picture of Li et al. (arXiv 1712.09913, section 4), drawn around the architecture parameters instead of the
weights, as SmoothDARTS (arXiv 2002.05283) and MS-DARTS (arXiv 2108.09996) do to show how flat a search has ended.

The directions differ from those of Li et al., whose length follows that of the point: here a distance of 1 moves
the entries of alpha by 1 in root mean square, whatever alpha is. Landscapes of different searches therefore have
the same scale. Not covered: what lies outside the plane. Two random directions among hundreds rarely meet the
sharpest one, which models/search/curvature.py finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.training.events import Listener, Measuring, silent

# Several architecture parameters by cell type -> their losses (N,).
Losses = Callable[[Sequence[Mapping[str, Tensor]]], Tensor]

COLUMNS = ("first", "second", "loss")


@dataclass(frozen=True)
class Landscape:
    """Losses (P, P) at the offsets (P,) along the first and the second direction; alpha is in the middle.

    Offsets are in root mean square of the entries of alpha: the Frobenius norm of the change, divided by the
    root of the number of entries.
    """

    offsets: Tensor
    losses: Tensor

    @property
    def center(self) -> float:
        """The loss at alpha."""
        middle = len(self.offsets) // 2
        return float(self.losses[middle, middle])

    @property
    def rise(self) -> float:
        """By how much the loss at the rim of the grid exceeds that at alpha, on average over the rim."""
        rim = torch.cat([self.losses[[0, -1]].flatten(), self.losses[1:-1, [0, -1]].flatten()])
        return float(rim.mean()) - self.center

    @staticmethod
    def of_rows(rows: Sequence[Mapping[str, float]]) -> Landscape:
        """The landscape that ``rows`` has given."""
        points = math.isqrt(len(rows))
        losses = torch.tensor([row["loss"] for row in rows], dtype=torch.float64)
        offsets = torch.tensor([row["second"] for row in rows[:points]], dtype=torch.float64)
        return Landscape(offsets, losses.view(points, points))

    def rows(self) -> list[dict[str, float]]:
        """One row per point of the grid, with the keys of ``COLUMNS``."""
        offsets = self.offsets.tolist()
        return [
            dict(zip(COLUMNS, (first, second, loss), strict=True))
            for first, losses in zip(offsets, self.losses.tolist(), strict=True)
            for second, loss in zip(offsets, losses, strict=True)
        ]


def landscape(
    losses: Losses,
    alphas: Mapping[str, Tensor],
    *,
    points: int,
    radius: float = 1.0,
    seed: int = 0,
    on_event: Listener = silent,
) -> Landscape:
    """The loss at ``points`` x ``points`` points that reach ``radius`` to either side of ``alphas``.

    ``seed`` draws the directions, so searches with alphas of equal shapes are seen in the same plane. Calls
    ``losses`` once per row of the grid, without gradients. Raises InvalidInput unless ``points`` is odd and at least 3,
    so that one point is alpha itself.
    """
    if points < 3 or points % 2 == 0:
        raise InvalidInput(
            f"a landscape of {points} points per side has no middle; set an odd number from 3 on"
        )
    first, second = directions(alphas, seed)
    offsets = torch.linspace(-radius, radius, points, dtype=torch.float64).tolist()
    offsets[points // 2] = 0.0  # exactly alpha
    rows = []
    for done, along in enumerate(offsets, start=1):
        row = [
            {group: alpha + along * first[group] + across * second[group] for group, alpha in alphas.items()}
            for across in offsets
        ]
        with torch.no_grad():
            rows.append(losses(row).double().cpu())
        on_event(Measuring("loss landscape, row", done, points))
    return Landscape(torch.tensor(offsets, dtype=torch.float64), torch.stack(rows))


def directions(alphas: Mapping[str, Tensor], seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two random directions at right angles, each with an entry of 1 in root mean square over all cell types."""
    source = torch.Generator().manual_seed(seed)
    sizes = [alpha.numel() for alpha in alphas.values()]
    drawn = torch.randn((sum(sizes), 2), generator=source, dtype=torch.float64)
    flat = torch.linalg.qr(drawn).Q * sum(sizes) ** 0.5

    def shaped(column: Tensor) -> dict[str, Tensor]:
        parts = zip(alphas.items(), column.split(sizes), strict=True)
        return {group: part.view(alpha.shape).to(alpha) for (group, alpha), part in parts}

    return shaped(flat[:, 0]), shaped(flat[:, 1])
