"""What replaces the mix before the weight step, so that the weights become good all around the mix.

SmoothDARTS (arXiv 2002.05283) trains the weights at a random neighbour of the mix or at a bad one
(``Perturbation``). MS-DARTS (arXiv 2108.09996) trains them at the mean shift of a few neighbours
(``MeanShift``; models/search/mean_shift.py has the formula). All cell types are perturbed together. The
radius, in mixing weights, grows linearly over the epochs.

Axes: N samples, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.mean_shift import (
    effective_sample_size,
    kernel_spread,
    living,
    mean_shift,
    median_bandwidth,
    perturb,
    project,
    sample_weights,
)
from models.search.objective import Mix, Objective, Params
from models.training.averages import Averages
from models.training.schedules import linear

Live = Mapping[str, Tensor]  # group -> which candidates take part (E, O)

FLAT_KERNEL = 0.01  # kernel spread below which a mean shift hardly differs from an average


class Smoothing(Protocol):
    """Takes the mix, whose rows lie on the simplex, and gives the mix of the weight step, on the simplex too.

    No gradients. ``live`` (E, O) per group is false at pruned operations, whose weight stays 0; None: nothing is pruned.
    """

    def __call__(self, mix: Mix, params: Params, train: Objective, live: Live | None = None) -> Mix: ...
    def start_epoch(self, epoch: int) -> None: ...

    def report(self) -> dict[str, float]:
        """Columns of the history, over the epoch so far."""
        ...

    def notices(self) -> list[str]:
        """What the user should be told. A notice is given once, even if the search is resumed."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class PerturbationConfig:
    """Settings of SmoothDARTS: the radius in the first and last epoch, and the steps of ascent.

    0 steps make SDARTS-RS, the published 7 steps SDARTS-ADV. The radii are the published ones.
    """

    radius_start: float = 0.03
    radius_end: float = 0.3
    steps: int = 0


class Perturbation:
    """SmoothDARTS: a point drawn uniformly from the box around the mix. SDARTS-ADV moves it uphill on the loss.

    Each step of the ascent moves the point by 2 radius / steps along the sign of the gradient of the train
    loss, then back into the box and onto the simplex (an L-infinity PGD attack, Madry et al., arXiv
    1706.06083). Losses are computed in evaluation mode. The projection comes last, as in SmoothDARTS, so the
    point may leave the box when a row is divided by its sum.
    """

    def __init__(self, config: PerturbationConfig, epochs: int, generator: torch.Generator):
        if config.steps < 0:
            raise InvalidInput(f"the steps of the ascent are {config.steps}; set 0 or more")
        self.config, self.epochs, self.generator = config, epochs, generator
        self.radius = config.radius_start

    def start_epoch(self, epoch: int) -> None:
        self.radius = linear(self.config.radius_start, self.config.radius_end, epoch, self.epochs)

    def __call__(self, mix: Mix, params: Params, train: Objective, live: Live | None = None) -> Mix:
        params = {name: weight.detach() for name, weight in params.items()}
        live = live or {}
        point = {
            group: perturb(rows, 1, self.radius, self.generator, live.get(group))[0]
            for group, rows in mix.items()
        }
        for _ in range(self.config.steps):
            leaves = {group: rows.requires_grad_() for group, rows in point.items()}
            gradients = torch.autograd.grad(train.evaluated(params, leaves), list(leaves.values()))
            size, point = 2.0 * self.radius / self.config.steps, {}
            for (group, rows), gradient in zip(leaves.items(), gradients, strict=True):
                move = rows.detach() + size * gradient.sign() - mix[group]
                moved = mix[group] + move.clamp(-self.radius, self.radius)
                point[group] = project(living(moved, live.get(group)))
        return point

    def report(self) -> dict[str, float]:
        return {"radius": self.radius}

    def notices(self) -> list[str]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


@dataclass(frozen=True)
class MeanShiftConfig:
    """Settings of the mean shift; defaults are the published ones.

    Radius and bandwidth are in mixing weights.

    ``bandwidth`` "auto" is the median distance of the samples, computed in each iteration. The loss weights
    are softmax(sign * losses / temperature): with sign 1, as published, worse samples weigh more, with sign
    -1 better ones. Losses are taken on every ``probe_every``-th case of the batch; 1, as published: on all.
    """

    samples: int = 3
    iterations: int = 2
    bandwidth: float | Literal["auto"] = 1.0
    radius_start: float = 0.025
    radius_end: float = 0.25
    sign: Literal[1, -1] = 1
    temperature: float = 1.0
    probe_every: int = 1


class MeanShift:
    """MS-DARTS: replaces the mix by the mean shift of samples around it, repeated ``iterations`` times.

    All cell types are perturbed together and each sample has one loss, but distances and bandwidth are per
    cell type. Reports means over the epoch: the bandwidth and the effective sample size of the weights, over
    cell types too, and the largest kernel spread of a step.
    """

    def __init__(self, config: MeanShiftConfig, epochs: int, generator: torch.Generator):
        _check(config)
        self.config, self.epochs, self.generator = config, epochs, generator
        self.radius = config.radius_start
        self.averages = Averages()
        self.least_spread: Tensor | None = None
        self.told = False

    def start_epoch(self, epoch: int) -> None:
        self.radius = linear(self.config.radius_start, self.config.radius_end, epoch, self.epochs)
        self.averages, self.least_spread = Averages(), None

    def __call__(self, mix: Mix, params: Params, train: Objective, live: Live | None = None) -> Mix:
        spreads: list[Tensor] = []
        live = live or {}
        scored = train if self.config.probe_every == 1 else train.thinned(self.config.probe_every)
        for _ in range(self.config.iterations):
            samples = {
                group: perturb(center, self.config.samples, self.radius, self.generator, live.get(group))
                for group, center in mix.items()
            }
            mixes = [
                {group: drawn[n] for group, drawn in samples.items()} for n in range(self.config.samples)
            ]
            scores = scored.probe(params, mixes) * (self.config.sign / self.config.temperature)
            shifted = {}
            for group, center in mix.items():
                bandwidth = self._bandwidth(center, samples[group])
                shifted[group] = mean_shift(center, samples[group], scores, bandwidth)
                spreads.append(kernel_spread(center, samples[group], bandwidth))
                weights = sample_weights(center, samples[group], scores, bandwidth)
                self.averages.add(
                    {"effective_sample_size": effective_sample_size(weights), "bandwidth": bandwidth}
                )
            mix = shifted
        spread = torch.stack(spreads).max()
        self.averages.add({"kernel_spread": spread})
        self.least_spread = spread if self.least_spread is None else self.least_spread.minimum(spread)
        return mix

    def _bandwidth(self, center: Tensor, samples: Tensor) -> Tensor:
        if self.config.bandwidth == "auto":
            return median_bandwidth(center, samples)
        return torch.full((), self.config.bandwidth, dtype=center.dtype, device=center.device)

    def report(self) -> dict[str, float]:
        return {"radius": self.radius, **self.averages.means()}

    def notices(self) -> list[str]:
        if self.told or self.config.samples < 2 or self.least_spread is None:
            return []
        if float(self.least_spread) >= FLAT_KERNEL:
            return []
        self.told = True
        message = (
            f"the bandwidth {self.config.bandwidth} is so large for the radius {self.radius:.3g} that the kernel weights"
            f" of a step differ by less than {FLAT_KERNEL:.0%}: the mean shift is nearly an average weighted by the loss"
            " alone; set search.mean_shift.bandwidth to auto so that it follows the radius"
        )
        return [message]

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.told = state["told"]


def _check(config: MeanShiftConfig) -> None:
    if config.samples < 1:
        raise InvalidInput(f"mean_shift.samples is {config.samples}; set 1 or more")
    if config.iterations < 1:
        raise InvalidInput(f"mean_shift.iterations is {config.iterations}; set 1 or more")
    if config.bandwidth != "auto" and not config.bandwidth > 0:
        raise InvalidInput(f"mean_shift.bandwidth is {config.bandwidth}; set a positive number or auto")
    if config.sign not in (1, -1):
        raise InvalidInput(f"mean_shift.sign is {config.sign}; set 1 or -1")
    if config.probe_every < 1:
        raise InvalidInput(f"mean_shift.probe_every is {config.probe_every}; set 1 or more")
    if not config.temperature > 0:
        raise InvalidInput(f"mean_shift.temperature is {config.temperature}; set a positive number")
