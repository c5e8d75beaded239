"""Where the gradient that moves the architecture comes from.

An ``Estimator`` gives d loss / d alpha for one step. ``Pathwise`` differentiates through the mix:
``first_order`` and ``unrolled`` (DARTS, arXiv 1806.09055, section 2.3) give the gradient with respect to the
*mix*, as pure functions of weights, mix and two losses, and ``Pathwise`` applies the chain rule through the
relaxation. ``Joint`` computes the gradients of weights and alpha in one pass over one batch (single-level
search). ``models.search.score_function.ScoreFunction`` never differentiates through the mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.search.objective import Mix, Objective, Params, Pass, leaves
from models.training.distributed import mean_loss

FINITE_DIFFERENCE = 0.01  # DARTS section 2.3: epsilon = 0.01 / ||grad||

Relaxation = Callable[[Tensor], Tensor]  # architecture parameters (E, O) -> weights of the candidates (E, O)


@dataclass(frozen=True)
class Descent:
    """The step of SGD that the weights are about to take, as far as it can be foreseen.

    ``velocity`` holds the momentum buffers by weight name; weights without a buffer have not moved yet. As in
    the reference, the norm of the gradient is not clipped here.
    """

    learning_rate: float
    momentum: float
    weight_decay: float
    velocity: Params

    def step(self, params: Params, gradients: Params) -> dict[str, Tensor]:
        """w' = w - rate (momentum velocity + gradient + decay w), without gradients."""
        moved = {}
        for name, weight in params.items():
            direction = gradients[name] + self.weight_decay * weight.detach()
            if name in self.velocity:
                direction = direction + self.momentum * self.velocity[name]
            moved[name] = weight.detach() - self.learning_rate * direction
        return moved


def descent_of(optimizer: torch.optim.Optimizer, params: Params) -> Descent:
    """The next step of the optimizer, which has all of these weights in one parameter group.

    Of Adam, whose step depends on the gradient in another way, it is the step of plain gradient descent at the same rate.
    """
    (group,) = optimizer.param_groups
    buffers = {name: optimizer.state[weight].get("momentum_buffer") for name, weight in params.items()}
    velocity = {name: buffer for name, buffer in buffers.items() if buffer is not None}
    return Descent(group["lr"], group.get("momentum", 0.0), group["weight_decay"], velocity)


@dataclass(frozen=True)
class Step:
    """What one step of a search offers its estimator."""

    params: Params  # the weights
    train: Objective
    valid: Objective
    descent: Callable[[], Descent]  # the step that the weights are about to take; only ``unrolled`` calls it


@dataclass(frozen=True)
class Estimate:
    """The loss that the architecture descends, and its gradient with respect to alpha."""

    loss: Tensor
    alphas: Mapping[str, Tensor]
    weights: Pass | None = None  # the weights' pass at the mix, if the estimator has made it anyway


class Estimator(Protocol):
    """Where d loss / d alpha comes from."""

    @property
    def moves_together(self) -> bool:
        """Whether weights and alpha move from the same point, instead of alpha first."""
        ...

    def __call__(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Estimate: ...

    def while_frozen(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Pass | None:
        """The weights' pass while alpha does not move; None where they train at the mix as ever."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it carries from step to step."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Stateless:
    """An estimator that carries nothing from step to step, and whose weights train at the mix."""

    def while_frozen(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Pass | None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


# (mix, step) -> the validation loss, and its gradient with respect to the mix
MixGradient = Callable[[Mix, Step], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Pathwise(Stateless):
    """A gradient with respect to the mix, carried on to alpha by the chain rule."""

    gradient: MixGradient
    moves_together = False

    def __call__(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Estimate:
        mix = {group: relaxation(alpha) for group, alpha in alphas.items()}
        loss, of_mix = self.gradient({group: rows.detach() for group, rows in mix.items()}, step)
        return Estimate(loss, _through(mix, alphas, of_mix))


@dataclass(frozen=True)
class Joint(Stateless):
    """Single-level search (Single-DARTS, arXiv 2108.08128): one pass moves weights and alpha."""

    moves_together = True

    def __call__(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Estimate:
        mix = {group: relaxation(alpha) for group, alpha in alphas.items()}
        weights, of_mix = step.train.joint_pass(step.params, mix)
        return Estimate(mean_loss(weights.loss), _through(mix, alphas, of_mix), weights)


def _through(mix: Mix, alphas: Mapping[str, Tensor], of_mix: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient with respect to alpha, from the gradient with respect to the mix."""
    gradients = torch.autograd.grad(
        list(mix.values()), list(alphas.values()), [of_mix[group] for group in mix]
    )
    return dict(zip(alphas, gradients, strict=True))


def first_order(mix: Mix, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """L_val(w, a) and its gradient with respect to a at the present weights (DARTS with xi = 0)."""
    loss, gradients, _ = _gradients(step.valid, step.params, mix, of_weights=False)
    return loss, gradients


def unrolled(mix: Mix, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """L_val(w', a) and its gradient through w' = w - xi grad_w L_train(w, a).

    The second-order term is a finite difference (DARTS, equations 7 and 8):

        grad_a L_val(w', a) - xi (grad_a L_train(w+, a) - grad_a L_train(w-, a)) / (2 epsilon)
        w+- = w +- epsilon grad_w' L_val(w', a),   epsilon = 0.01 / ||grad_w' L_val(w', a)||

    As in the reference, the virtual step has momentum and weight decay. Every pass is in training mode. Not
    covered: operations that draw random numbers (space S4), where the difference of the two passes is
    mostly noise. Every pass is computed in full precision: bfloat16's rounding errors would be half of the
    result.
    """
    params, descent = step.params, step.descent()
    train, valid = step.train.in_full_precision(), step.valid.in_full_precision()
    _, _, train_gradients = _gradients(train, params, mix, of_weights=True)
    ahead = descent.step(params, train_gradients)
    loss, direct, direction = _gradients(valid, ahead, mix, of_weights=True)
    norm = torch.linalg.vector_norm(torch.stack([part.norm() for part in direction.values()]))
    epsilon = FINITE_DIFFERENCE / norm.clamp_min(torch.finfo(norm.dtype).eps)

    def along(sign: float) -> dict[str, Tensor]:
        moved = {name: weight.detach() + sign * epsilon * direction[name] for name, weight in params.items()}
        return _gradients(train, moved, mix, of_weights=False)[1]

    above, below = along(1.0), along(-1.0)
    scale = descent.learning_rate / (2.0 * epsilon)
    return loss, {group: direct[group] - scale * (above[group] - below[group]) for group in mix}


def _gradients(
    objective: Objective, params: Params, mix: Mix, *, of_weights: bool
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss and gradients with respect to the mix and, if asked for, with respect to the weights."""
    mix = leaves(mix)
    params = leaves(params) if of_weights else {name: weight.detach() for name, weight in params.items()}
    loss = objective(params, mix)
    inputs = [*mix.values(), *(params.values() if of_weights else ())]
    gradients = torch.autograd.grad(loss, inputs)
    of_mix = dict(zip(mix, gradients, strict=False))
    return loss.detach(), of_mix, dict(zip(params, gradients[len(mix) :], strict=False))
