"""How the mix moves: strategies, composed from an architecture step and a smoothing of the mix.

A strategy sees losses through objectives, never data or networks. DARTS (arXiv 1806.09055) is the alternating strategy
with no smoothing; MS-DARTS (arXiv 2108.09996) is the same with a mean shift. New members of the family are new arguments.

Axes: N samples, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.mean_shift import mean_shift, perturb
from models.spaces import SearchSpace

Params = Mapping[str, Tensor]  # weight name -> tensor, for torch.func.functional_call
Mix = Mapping[str, Tensor]  # cell type -> (edges, operations); every row on the simplex


class Objective(Protocol):
    """The loss of one batch of one split."""

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        """The loss, a scalar with gradients, in training mode."""
        ...

    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        """Losses (N,) of N mixes: evaluation mode, no gradient, batch statistics untouched, one batched pass."""
        ...


class Smoothing(Protocol):
    """What replaces the mix before the weight step."""

    def __call__(self, mix: Mix, params: Params, train: Objective) -> Mix: ...
    def start_epoch(self, epoch: int) -> None: ...
    def report(self) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Strategy(Protocol):
    """What the search loop asks of a strategy."""

    def mix(self) -> Mix:
        """The mix as it stands, differentiable with respect to the architecture parameters."""
        ...

    def alphas(self) -> dict[str, Tensor]:
        """A copy of the architecture parameters, cell type -> (edges, operations)."""
        ...

    def step(self, params: Params, train: Objective, valid: Objective) -> Mix:
        """Moves the architecture and returns the mix for the weight step, without gradients."""
        ...

    def needs_valid(self) -> bool:
        """Whether the next step will ask for the validation objective."""
        ...

    def start_epoch(self, epoch: int) -> None: ...

    def report(self) -> dict[str, float | None]:
        """What is worth a column in the history, over the epoch so far."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class AlphaConfig:
    """Adam on the architecture parameters; defaults are the published ones."""

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    warmup_epochs: int = 5  # epochs at the start in which alpha stays as initialized


class Alternating:
    """DARTS, first order: Adam on alpha with the validation loss at softmax(alpha), then the weights' turn.

    ``smoothing`` replaces the mix of the weight step; None trains the weights at softmax(alpha) itself.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: AlphaConfig,
        generator: torch.Generator,
        smoothing: Smoothing | None = None,
        device: torch.device | None = None,
    ):
        self.config, self.smoothing = config, smoothing
        self.alpha = {
            group: (1e-3 * torch.randn(shape, generator=generator)).to(device).requires_grad_()
            for group, shape in space.shapes().items()
        }
        self.optimizer = torch.optim.Adam(
            list(self.alpha.values()),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.frozen = config.warmup_epochs > 0
        self.loss_sum, self.steps = torch.zeros((), device=device), 0

    def mix(self) -> Mix:
        return {group: torch.softmax(alpha, dim=-1) for group, alpha in self.alpha.items()}

    def alphas(self) -> dict[str, Tensor]:
        return {group: alpha.detach().clone() for group, alpha in self.alpha.items()}

    def needs_valid(self) -> bool:
        return not self.frozen

    def step(self, params: Params, train: Objective, valid: Objective) -> Mix:
        if not self.frozen:
            loss = valid(params, self.mix())
            gradients = torch.autograd.grad(loss, list(self.alpha.values()))
            for alpha, gradient in zip(self.alpha.values(), gradients, strict=True):
                alpha.grad = gradient
            self.optimizer.step()
            self.loss_sum += loss.detach()
            self.steps += 1
        mix = {group: weights.detach() for group, weights in self.mix().items()}
        return mix if self.smoothing is None else self.smoothing(mix, params, train)

    def start_epoch(self, epoch: int) -> None:
        self.frozen = epoch < self.config.warmup_epochs
        self.loss_sum, self.steps = torch.zeros_like(self.loss_sum), 0
        if self.smoothing is not None:
            self.smoothing.start_epoch(epoch)

    def report(self) -> dict[str, float | None]:
        return {
            "architecture_loss": float(self.loss_sum) / self.steps if self.steps else None,
            "architecture_learning_rate": 0.0 if self.frozen else self.config.learning_rate,
            "radius": 0.0,
            **(self.smoothing.report() if self.smoothing else {}),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "alpha": {group: alpha.detach() for group, alpha in self.alpha.items()},
            "optimizer": self.optimizer.state_dict(),
            "smoothing": self.smoothing.state_dict() if self.smoothing else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for group, alpha in self.alpha.items():
                alpha.copy_(state["alpha"][group])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.smoothing:
            self.smoothing.load_state_dict(state["smoothing"])


@dataclass(frozen=True)
class MeanShiftConfig:
    """Settings of the mean shift; defaults are the published ones. Radius and bandwidth are in mixing weights."""

    samples: int = 3
    iterations: int = 2
    bandwidth: float = 1.0
    radius_start: float = 0.025
    radius_end: float = 0.25


class MeanShift:
    """MS-DARTS: the mix of the weight step is the mean shift of samples around it, repeated ``iterations`` times.

    All cell types are perturbed together and each sample has one loss; distances are per cell type. The radius
    rises linearly from the first to the last of ``epochs``.
    """

    def __init__(self, config: MeanShiftConfig, epochs: int, generator: torch.Generator):
        self.config, self.epochs, self.generator = config, epochs, generator
        self.radius = config.radius_start

    def start_epoch(self, epoch: int) -> None:
        config = self.config
        share = epoch / max(self.epochs - 1, 1)
        self.radius = config.radius_start + (config.radius_end - config.radius_start) * share

    def __call__(self, mix: Mix, params: Params, train: Objective) -> Mix:
        for _ in range(self.config.iterations):
            samples = {
                group: perturb(center, self.config.samples, self.radius, self.generator)
                for group, center in mix.items()
            }
            mixes = [
                {group: drawn[n] for group, drawn in samples.items()} for n in range(self.config.samples)
            ]
            losses = train.probe(params, mixes)
            mix = {
                group: mean_shift(center, samples[group], losses, self.config.bandwidth)
                for group, center in mix.items()
            }
        return mix

    def report(self) -> dict[str, float]:
        return {"radius": self.radius}

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


def row_entropy(rows_EO: Tensor) -> float:
    """Mean entropy in nats of the rows of a mix: log(O) when nothing is decided, 0 when all is."""
    return float(torch.special.entr(rows_EO.detach()).sum(dim=-1).mean())
