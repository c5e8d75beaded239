"""How the mix moves: a strategy is a composition of estimator, relaxation, smoothing of the mix and penalties.

A strategy sees losses through objectives, never data or networks. Every member of the family is
``Alternating`` with other arguments:

    DARTS (arXiv 1806.09055)           none; second order: estimator=Pathwise(unrolled)
    SDARTS-RS, -ADV (arXiv 2002.05283) smoothing=Perturbation, with 0 and with 7 steps
    MS-DARTS (arXiv 2108.09996)        smoothing=MeanShift
    Single-DARTS (arXiv 2108.08128)    estimator=Joint, relaxation=sigmoid
    DQAS (arXiv 2010.08561)            estimator=ScoreFunction
    RhoDARTS (arXiv 2506.03697)        estimator=Joint, on mixed states (models/circuits)

Any of them may have penalties on alpha (models/search/penalties.py) and a falling temperature of the relaxation.

Axes: E edges, O operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.gradients import Estimator, Pathwise, Relaxation, Step, first_order
from models.search.objective import Mix, Pass
from models.search.penalties import Penalty, shares
from models.search.smoothing import Live, Smoothing
from models.search.spaces import SearchSpace
from models.training.averages import Averages
from models.training.optimizers import Adam, embedded, follow


@dataclass(frozen=True)
class Update:
    """What the weights get from a strategy: the mix that they train at, without gradients.

    ``weights`` is their pass over the train batch at that mix, if moving the architecture has made it anyway.
    """

    mix: Mix
    weights: Pass | None = None


class Strategy(Protocol):
    """What a search asks of a strategy."""

    def mix(self, alphas: Mapping[str, Tensor] | None = None) -> Mix:
        """The mix at the present or at other architecture parameters, differentiable in them."""
        ...

    def alphas(self) -> dict[str, Tensor]:
        """A copy of the architecture parameters as ``mix`` takes them, group -> (edges, operations)."""
        ...

    def step(self, step: Step) -> Update:
        """Moves the architecture and returns the mix that the weights train at."""
        ...

    def needs_valid(self) -> bool:
        """Whether the next step will use the validation objective."""
        ...

    def start_epoch(self, epoch: int) -> None: ...

    def grow(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Goes on with more edges and operations, group -> (edges, operations), of which the present ones are the first."""
        ...

    def prune(self, live: Live) -> None:
        """From now on, candidates that are not live weigh 0 in every mix, group -> (edges, operations)."""
        ...

    def live(self) -> Live:
        """Group -> which candidates take part (edges, operations)."""
        ...

    def report(self) -> dict[str, float | None]:
        """Columns of the history, over the epoch so far."""
        ...

    def notices(self) -> list[str]:
        """What the user should be told. A notice is given once."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def softmax(alpha_EO: Tensor) -> Tensor:
    """Operations compete: every row sums to 1 (DARTS, equation 2)."""
    return torch.softmax(alpha_EO, dim=-1)


def sigmoid(alpha_EO: Tensor) -> Tensor:
    """Operations do not compete: each has its own strength in (0, 1) (Single-DARTS)."""
    return torch.sigmoid(alpha_EO)


@dataclass(frozen=True)
class AlphaConfig:
    """Adam on the architecture parameters; defaults are the published ones."""

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    warmup_epochs: int = 5  # epochs at the start in which alpha stays as initialized


FIRST_ORDER = Pathwise(first_order)


class Alternating:
    """Adam moves alpha, then the weights train at the new mix, or at what ``smoothing`` makes of the new mix.

    ``estimator`` gives the gradient of alpha, to which those of the ``penalties`` are added. ``relaxation`` makes
    a mix of alpha divided by the temperature of the epoch, ``temperature(epoch)``. What ``alphas`` returns is
    divided already, so that the mix of an earlier epoch needs no temperature. Raises InvalidInput for parts that
    do not fit together.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: AlphaConfig,
        generator: torch.Generator,
        smoothing: Smoothing | None = None,
        device: torch.device | None = None,
        *,
        estimator: Estimator = FIRST_ORDER,
        relaxation: Relaxation = softmax,
        penalties: Sequence[Penalty] = (),
        temperature: Callable[[int], float] | None = None,
    ):
        if smoothing is not None and relaxation is not softmax:
            raise InvalidInput("smoothing projects the mix onto the simplex, so it needs softmax weights")
        if smoothing is not None and estimator.moves_together:
            raise InvalidInput(
                "smoothing moves the weights at another mix than alpha, so it needs a pass of its own"
            )
        self.config, self.smoothing, self.generator = config, smoothing, generator
        self.estimator, self.relaxation, self.penalties = estimator, relaxation, penalties
        self.temperature_in, self.temperature = temperature, 1.0
        self.alpha = {
            group: (1e-3 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
            for group, shape in space.shapes().items()
        }
        self.optimizer = Adam(
            list(self.alpha.values()),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.masks: dict[str, Tensor] = {}  # like ``live``; empty while nothing is pruned
        self.frozen = config.warmup_epochs > 0
        self.averages = Averages()

    def mix(self, alphas: Mapping[str, Tensor] | None = None) -> Mix:
        if alphas is not None:
            return {group: self.relaxation(alpha) for group, alpha in alphas.items()}
        return {group: self._relaxed(alpha) for group, alpha in self._present().items()}

    def alphas(self) -> dict[str, Tensor]:
        return {group: alpha.detach() / self.temperature for group, alpha in self._present().items()}

    def _present(self) -> dict[str, Tensor]:
        """The architecture parameters, minus infinity at pruned candidates, so that every relaxation gives them 0."""
        if not self.masks:
            return self.alpha
        return {
            group: alpha.masked_fill(~self.masks[group], -math.inf) for group, alpha in self.alpha.items()
        }

    def _relaxed(self, alpha_EO: Tensor) -> Tensor:
        return self.relaxation(alpha_EO / self.temperature)

    def needs_valid(self) -> bool:
        return not (self.frozen or self.estimator.moves_together)

    def step(self, step: Step) -> Update:
        before = detached(self.mix())
        weights = (
            self.estimator.while_frozen(self._present(), self._relaxed, step)
            if self.frozen
            else self._move(step)
        )
        if self.estimator.moves_together:
            return Update(before, weights)
        mix = detached(self.mix())
        if self.smoothing is None:
            return Update(mix)
        smoothed = self.smoothing(mix, step.params, step.train, self.masks or None)
        self.averages.add({"movement": distance(mix, smoothed)})
        return Update(smoothed)

    def _move(self, step: Step) -> Pass | None:
        estimate = self.estimator(self._present(), self._relaxed, step)
        for group, alpha in self.alpha.items():
            alpha.grad = estimate.alphas[group]
        self._penalize()
        self.optimizer.step()
        self.averages.add({"architecture_loss": estimate.loss})
        return estimate.weights

    def _penalize(self) -> None:
        """Adds the gradients of the penalties to those of alpha."""
        if not self.penalties:
            return
        logits = {group: alpha / self.temperature for group, alpha in self._present().items()}
        mix = {group: self.relaxation(rows) for group, rows in logits.items()}
        terms = torch.stack([penalty.weight * penalty(logits, mix) for penalty in self.penalties])
        terms.sum().backward(inputs=list(self.alpha.values()))
        self.averages.add({"penalty": terms.detach().sum()})

    def start_epoch(self, epoch: int) -> None:
        self.temperature = self.temperature_in(epoch) if self.temperature_in else 1.0
        for penalty in self.penalties:
            penalty.start_epoch(epoch)
        self.frozen = epoch < self.config.warmup_epochs
        self.averages = Averages()
        if self.smoothing is not None:
            self.smoothing.start_epoch(epoch)

    @torch.no_grad()
    def grow(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """New edges start as the first ones did. A new candidate of an old edge weighs what its candidates do on average."""
        present, earlier = self._present(), dict(self.alpha)
        for group, alpha in earlier.items():
            shape, before = tuple(shapes[group]), alpha.shape
            if shape == before:
                continue
            drawn = (1e-3 * torch.randn(shape, generator=self.generator, dtype=alpha.dtype)).to(alpha.device)
            logits = present[group] / self.temperature
            mean = logits.logsumexp(dim=1) - logits.isfinite().sum(dim=1).log()
            drawn[: before[0], before[1] :] = self.temperature * mean[:, None]
            self.alpha[group] = embedded(alpha, drawn).requires_grad_()
            if self.masks:
                everything = torch.ones(shape, dtype=torch.bool, device=alpha.device)
                self.masks[group] = embedded(self.masks[group], everything)
        follow(self.optimizer, earlier, self.alpha)

    def prune(self, live: Live) -> None:
        self.masks = {group: live[group].to(alpha.device) for group, alpha in self.alpha.items()}

    def live(self) -> Live:
        return self.masks or {
            group: torch.ones_like(alpha, dtype=torch.bool) for group, alpha in self.alpha.items()
        }

    def report(self) -> dict[str, float | None]:
        return {
            "architecture_loss": None,
            "architecture_learning_rate": 0.0 if self.frozen else self.config.learning_rate,
            "radius": 0.0,
            "movement": 0.0,
            "penalty": 0.0,
            "temperature": self.temperature,
            **self.averages.means(),
            **(self.smoothing.report() if self.smoothing else {}),
            **self._report_of_penalties(),
        }

    def _report_of_penalties(self) -> dict[str, float | None]:
        mix = detached(self.mix())
        return {name: value for penalty in self.penalties for name, value in penalty.report(mix).items()}

    def notices(self) -> list[str]:
        return self.smoothing.notices() if self.smoothing else []

    def state_dict(self) -> dict[str, Any]:
        return {
            "alpha": {group: alpha.detach() for group, alpha in self.alpha.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "masks": self.masks,
            "estimator": self.estimator.state_dict(),
            "smoothing": self.smoothing.state_dict() if self.smoothing else {},
            "penalties": [penalty.state_dict() for penalty in self.penalties],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for group, alpha in self.alpha.items():  # their shapes may have grown since the strategy was built
            alpha.data = state["alpha"][group].to(alpha).clone()
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.masks = {group: mask.to(self.alpha[group].device) for group, mask in state["masks"].items()}
        self.estimator.load_state_dict(state["estimator"])
        if self.smoothing:
            self.smoothing.load_state_dict(state["smoothing"])
        for penalty, of_penalty in zip(self.penalties, state["penalties"], strict=True):
            penalty.load_state_dict(of_penalty)


def detached(mix: Mix) -> dict[str, Tensor]:
    """The mix without gradients."""
    return {group: rows.detach() for group, rows in mix.items()}


def distance(one: Mix, other: Mix) -> Tensor:
    """How far apart two mixes are: the Frobenius norm of their difference over all cell types, a scalar."""
    parts = [(one[group] - other[group]).square().sum() for group in one]
    return torch.stack(parts).sum().sqrt()


def row_entropy(rows_EO: Tensor) -> float:
    """Mean entropy in nats of the rows of a mix: log(O) when nothing is decided, 0 when everything is.

    Rows are divided by their sums first, which matters only for sigmoid weights.
    """
    return float(torch.special.entr(shares(rows_EO.detach())).sum(dim=-1).mean())


def indecision(mix: Mix) -> float:
    """The mean over all rows of their entropy as a share of the most that it can be, log(O).

    1 when nothing is decided, 0 when everything is.
    """
    rows = [torch.special.entr(shares(rows)).sum(dim=-1) / math.log(rows.shape[-1]) for rows in mix.values()]
    return float(torch.cat(rows).mean())


def largest_weight(mix: Mix) -> float:
    """The mean over all rows of their largest weight: 1 / O when nothing is decided, 1 when everything is."""
    return float(torch.cat([shares(rows).amax(dim=-1) for rows in mix.values()]).mean())
