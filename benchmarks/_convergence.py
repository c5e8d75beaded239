"""How the mean shift converges at the end of a search: the distance between iterates, and from where they began.

The search repeats the mean shift ``search.mean_shift.iterations`` times, and draws new samples around each iterate.
Here it is repeated more often, also with the samples of the first iteration, as the mean shift of statistics does
(Comaniciu and Meer, IEEE PAMI 24(5), 2002). The losses are those of one batch, and the radius is that of the last
epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from models.search.mean_shift import mean_shift, median_bandwidth, perturb
from models.search.objective import BatchObjective, Mix
from models.search.program import Found, Search
from models.search.strategies import detached, distance
from models.training.seeds import generator
from stages.search_params import MeanShiftParams

Bandwidth = float | Literal["auto"]
BANDWIDTHS: Sequence[Bandwidth] = (0.1, 1.0, "auto")
ITERATIONS, DRAWS = 20, 5
Curves = dict[str, dict[str, list[float]]]  # "redrawn, 1.0" -> step and moved -> one value per iteration


def convergence(search: Search, found: Found, settings: MeanShiftParams, seed: int) -> Curves:
    """``step``: from one iterate to the next; ``moved``: from the mix to the iterate. Means over a few draws."""
    x, target = next(iter(search.loaders.calibration()))
    objective = BatchObjective(search.domain, search.supernet, x, target)
    params = {name: weight.detach() for name, weight in search.supernet.named_parameters()}
    mix = detached(search.strategy.mix(found.alphas[found.epoch - 1]))

    def losses(samples: Mapping[str, Tensor]) -> Tensor:
        count = len(next(iter(samples.values())))
        return objective.probe(
            params, [{group: drawn[n] for group, drawn in samples.items()} for n in range(count)]
        )

    curves: Curves = {}
    for redrawn in (False, True):
        for bandwidth in BANDWIDTHS:
            drawn = [
                _iterates(mix, losses, settings, bandwidth, redrawn, generator(seed, f"convergence {draw}"))
                for draw in range(DRAWS)
            ]
            curves[f"{'redrawn' if redrawn else 'fixed'}, {bandwidth}"] = {
                "step": _means([list(map(distance, path, path[1:])) for path in drawn]),
                "moved": _means([[distance(path[0], other) for other in path[1:]] for path in drawn]),
            }
    return curves


def _iterates(
    mix: Mix,
    losses: Callable[[Mapping[str, Tensor]], Tensor],
    settings: MeanShiftParams,
    bandwidth: Bandwidth,
    redrawn: bool,
    source: torch.Generator,
) -> list[Mix]:
    """The mix and its iterates."""
    path, samples, scores = [mix], {}, torch.empty(0)
    for _ in range(ITERATIONS):
        center = path[-1]
        if redrawn or not samples:
            samples = {
                group: perturb(rows, settings.samples, settings.radius_end, source)
                for group, rows in center.items()
            }
            scores = losses(samples) * (settings.sign / settings.temperature)
        path.append(
            {
                group: mean_shift(rows, samples[group], scores, _width(bandwidth, rows, samples[group]))
                for group, rows in center.items()
            }
        )
    return path


def _width(bandwidth: Bandwidth, center: Tensor, samples: Tensor) -> float | Tensor:
    return median_bandwidth(center, samples) if bandwidth == "auto" else bandwidth


def _means(curves: Sequence[Sequence[Tensor]]) -> list[float]:
    stacked = torch.stack([torch.stack(list(curve)) for curve in curves])
    return [float(f"{value:.5g}") for value in stacked.mean(dim=0).tolist()]
