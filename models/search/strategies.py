"""How the mix moves: a strategy is composed from an architecture gradient, a relaxation and a smoothing of the mix.

A strategy sees losses through objectives, never data or networks. Every member of the family is ``Alternating`` with
other arguments:

    DARTS (arXiv 1806.09055)          nothing more; its second order with gradient=unrolled
    SDARTS-RS, -ADV (arXiv 2002.05283) smoothing=Perturbation, with 0 and with 7 steps
    MS-DARTS (arXiv 2108.09996)       smoothing=MeanShift
    Single-DARTS (arXiv 2108.08128)   simultaneous=True with the train objective in both places, relaxation=sigmoid

Axes: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.gradients import ArchitectureGradient, Descent, first_order
from models.search.objective import Mix, Objective, Params
from models.search.smoothing import Smoothing
from models.search.spaces import SearchSpace
from models.training.averages import Averages


class Strategy(Protocol):
    """What the search loop asks of a strategy."""

    def mix(self, alphas: Mapping[str, Tensor] | None = None) -> Mix:
        """The mix as it stands or at other architecture parameters, differentiable with respect to them."""
        ...

    def alphas(self) -> dict[str, Tensor]:
        """A copy of the architecture parameters, cell type -> (edges, operations)."""
        ...

    def step(self, params: Params, train: Objective, valid: Objective, descent: Descent) -> Mix:
        """Moves the architecture and returns the mix for the weight step (``descent``), without gradients."""
        ...

    def needs_valid(self) -> bool:
        """Whether the next step will ask for the validation objective."""
        ...

    def start_epoch(self, epoch: int) -> None: ...

    def report(self) -> dict[str, float | None]:
        """What is worth a column in the history, over the epoch so far."""
        ...

    def notices(self) -> list[str]:
        """What the user should be told, once."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Relaxation = Callable[[Tensor], Tensor]  # architecture parameters (E, O) -> weights of the candidates (E, O)


def softmax(alpha_EO: Tensor) -> Tensor:
    """Operations compete: every row sums to 1 (DARTS, equation 2)."""
    return torch.softmax(alpha_EO, dim=-1)


def sigmoid(alpha_EO: Tensor) -> Tensor:
    """Operations do not compete: each has a strength in (0, 1) of its own (Single-DARTS)."""
    return torch.sigmoid(alpha_EO)


@dataclass(frozen=True)
class AlphaConfig:
    """Adam on the architecture parameters; defaults are the published ones."""

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    warmup_epochs: int = 5  # epochs at the start in which alpha stays as initialized


class Alternating:
    """Adam on alpha with the validation loss at the mix, then the weights' turn, at the mix or what ``smoothing`` makes of it.

    ``gradient`` is how the validation loss tells where to go, ``relaxation`` how alpha becomes a mix. ``simultaneous``: the
    weights do not wait for alpha; both move from the same point, as in single-level search.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: AlphaConfig,
        generator: torch.Generator,
        smoothing: Smoothing | None = None,
        device: torch.device | None = None,
        *,
        gradient: ArchitectureGradient = first_order,
        relaxation: Relaxation = softmax,
        simultaneous: bool = False,
    ):
        if smoothing is not None and relaxation is not softmax:
            raise InvalidInput("smoothing projects the mix onto the simplex: it needs softmax mixing weights")
        self.config, self.smoothing, self.gradient = config, smoothing, gradient
        self.relaxation, self.simultaneous = relaxation, simultaneous
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
        self.averages = Averages()

    def mix(self, alphas: Mapping[str, Tensor] | None = None) -> Mix:
        return {group: self.relaxation(alpha) for group, alpha in (alphas or self.alpha).items()}

    def alphas(self) -> dict[str, Tensor]:
        return {group: alpha.detach().clone() for group, alpha in self.alpha.items()}

    def needs_valid(self) -> bool:
        return not self.frozen

    def step(self, params: Params, train: Objective, valid: Objective, descent: Descent) -> Mix:
        before = self.mix()
        if not self.frozen:
            self._move(before, params, train, valid, descent)
        mix = detached(before if self.simultaneous else self.mix())
        if self.smoothing is None:
            return mix
        smoothed = self.smoothing(mix, params, train)
        self.averages.add({"movement": distance(mix, smoothed)})
        return smoothed

    def _move(self, mix: Mix, params: Params, train: Objective, valid: Objective, descent: Descent) -> None:
        loss, of_mix = self.gradient(detached(mix), params, train, valid, descent)
        alphas = list(self.alpha.values())
        gradients = torch.autograd.grad(list(mix.values()), alphas, [of_mix[group] for group in mix])
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.optimizer.step()
        self.averages.add({"architecture_loss": loss})

    def start_epoch(self, epoch: int) -> None:
        self.frozen = epoch < self.config.warmup_epochs
        self.averages = Averages()
        if self.smoothing is not None:
            self.smoothing.start_epoch(epoch)

    def report(self) -> dict[str, float | None]:
        return {
            "architecture_loss": None,
            "architecture_learning_rate": 0.0 if self.frozen else self.config.learning_rate,
            "radius": 0.0,
            "movement": 0.0,
            **self.averages.means(),
            **(self.smoothing.report() if self.smoothing else {}),
        }

    def notices(self) -> list[str]:
        return self.smoothing.notices() if self.smoothing else []

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


def detached(mix: Mix) -> dict[str, Tensor]:
    """The mix without gradients."""
    return {group: rows.detach() for group, rows in mix.items()}


def distance(one: Mix, other: Mix) -> Tensor:
    """How far apart two mixes are: the Frobenius norm of their difference over all cell types, a scalar."""
    parts = [(one[group] - other[group]).square().sum() for group in one]
    return torch.stack(parts).sum().sqrt()


def row_entropy(rows_EO: Tensor) -> float:
    """Mean entropy in nats of the rows of a mix: log(O) when nothing is decided, 0 when all is.

    Rows are divided by their sums first, which matters for sigmoid weights only.
    """
    shares_EO = rows_EO.detach() / rows_EO.detach().sum(dim=-1, keepdim=True)
    return float(torch.special.entr(shares_EO).sum(dim=-1).mean())
