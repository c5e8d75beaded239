"""The gradient that moves the architecture (DARTS, arXiv 1806.09055, section 2.3): first order, or one step unrolled.

Both are gradients with respect to the *mix*; whoever holds alpha applies the chain rule through its softmax. That makes
them pure functions of weights, mix and two losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.search.objective import Mix, Objective, Params

FINITE_DIFFERENCE = 0.01  # DARTS section 2.3: epsilon = 0.01 / ||grad||


@dataclass(frozen=True)
class Descent:
    """The step of SGD that the weights are about to take, as far as looking ahead of it needs to know.

    ``velocity`` holds the momentum buffers by weight name; weights without one have not moved yet. The norm of the gradient
    is not clipped here, as in the reference.
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


def descent_of(optimizer: torch.optim.SGD, params: Params) -> Descent:
    """The next step of that optimizer, which moves all of these weights in one parameter group."""
    (group,) = optimizer.param_groups
    buffers = {name: optimizer.state[weight].get("momentum_buffer") for name, weight in params.items()}
    velocity = {name: buffer for name, buffer in buffers.items() if buffer is not None}
    return Descent(group["lr"], group["momentum"], group["weight_decay"], velocity)


# (mix, params, train, valid, descent) -> the validation loss, and its gradient with respect to the mix
ArchitectureGradient = Callable[
    [Mix, Params, Objective, Objective, Descent], tuple[Tensor, dict[str, Tensor]]
]


def first_order(
    mix: Mix, params: Params, train: Objective, valid: Objective, descent: Descent
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_val(w, a) and its gradient with respect to a, the weights taken as they are (DARTS with xi = 0)."""
    loss, gradients, _ = _gradients(valid, params, mix, of_weights=False)
    return loss, gradients


def unrolled(
    mix: Mix, params: Params, train: Objective, valid: Objective, descent: Descent
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_val(w', a) and its gradient through w' = w - xi grad_w L_train(w, a), by finite differences (equations 7 and 8).

        grad_a L_val(w', a) - xi (grad_a L_train(w+, a) - grad_a L_train(w-, a)) / (2 epsilon)
        w+- = w +- epsilon grad_w' L_val(w', a),   epsilon = 0.01 / ||grad_w' L_val(w', a)||

    The virtual step has momentum and weight decay, as in the reference. Every term is a pass in training mode. Not
    covered: operations that draw random numbers (space S4), where the difference of the two passes is mostly noise.
    """
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
    """Loss, gradients with respect to the mix and, where asked for, to the weights."""
    mix = _leaves(mix)
    params = _leaves(params) if of_weights else {name: weight.detach() for name, weight in params.items()}
    loss = objective(params, mix)
    inputs = [*mix.values(), *(params.values() if of_weights else ())]
    gradients = torch.autograd.grad(loss, inputs)
    of_mix = dict(zip(mix, gradients, strict=False))
    return loss.detach(), of_mix, dict(zip(params, gradients[len(mix) :], strict=False))


def _leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
