"""The weighted sum of operations on the same numbers, and that of combiners, each as one node of the graph of gradients.

Autograd would record every operation, product and sum by itself, which takes most of the time of a small recurrent step.
So the derivatives are written here. They can be differentiated again: then they are computed by operations that autograd
records.

Axes: N mixes, B batch, K edges, H hidden, O operations, S sides.
"""

# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda z: z,
}


def mixed_activation(z_NBKH: Tensor, weights_NKO: Tensor, operations: Sequence[str]) -> Tensor:
    """sum_o weight_ko o(z), (N, B, K, H). ``none`` adds nothing. Twice differentiable."""
    columns = [column for column, op in enumerate(operations) if op != "none"]
    names = tuple(operations[column] for column in columns)
    if not names:
        return torch.zeros_like(z_NBKH)
    if len(names) < len(operations):
        weights_NKO = weights_NKO[..., columns]
    return _Mixed.apply(z_NBKH.to(weights_NKO.dtype), weights_NKO, names)


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weights: Tensor, operations: tuple[str, ...]) -> Tensor:
        ctx.operations = operations
        values = [FUNCTIONS[op](z) for op in operations]
        ctx.save_for_backward(z, weights, *values)
        (first, *others), columns = values, _columns(weights)
        total = first * columns[0]
        for value, column in zip(others, columns[1:], strict=True):
            total.addcmul_(value, column)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        z, weights, *values = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives, in which the values depend on z
            values = [FUNCTIONS[op](z) for op in ctx.operations]
        of_z = (
            gradient * _slope(ctx.operations, values, _columns(weights)) if ctx.needs_input_grad[0] else None
        )
        of_weights = None
        if ctx.needs_input_grad[1]:
            sums = [(gradient * value).sum(dim=1).sum(dim=-1) for value in values]
            of_weights = torch.stack(sums, dim=-1)
        return of_z, of_weights, None


def _slope(operations: Sequence[str], values: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """The derivative with respect to z, from the values of the operations."""
    constant: Tensor | float = 0.0
    terms: list[tuple[Tensor, Tensor, float]] = []  # factor, factor, sign
    for op, value, column in zip(operations, values, columns, strict=True):
        match op:
            case "tanh":
                constant = constant + column
                terms.append((value * value, column, -1.0))
            case "sigmoid":
                terms.append((torch.addcmul(value, value, value, value=-1), column, 1.0))
            case "relu":
                terms.append((value.sign(), column, 1.0))
            case _:
                constant = constant + column
    total = constant
    for value, column, sign in terms:
        total = (
            torch.addcmul(total, value, column, value=sign)
            if isinstance(total, Tensor)
            else sign * value * column
        )
    assert isinstance(total, Tensor)
    return total


def combined(sides_NBSH: Tensor, weights_N2: Tensor, bound: float) -> Tensor:
    """The weighted sum (N, B, H) of the two sides' mean and of their product, clamped to [-bound, bound].

    Twice differentiable.
    """
    return _Combined.apply(sides_NBSH, weights_N2, bound)


class _Combined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sides: Tensor, weights: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(sides, weights)
        ctx.bound = bound
        left, right = sides.unbind(dim=2)
        mean, product = weights[:, :, None, None].unbind(dim=1)
        return ((left + right) * (0.5 * mean)).addcmul_((left * right).clamp_(-bound, bound), product)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        sides, weights = ctx.saved_tensors
        left, right = sides.unbind(dim=2)
        mean, product = weights[:, :, None, None].unbind(dim=1)
        multiplied = left * right
        of_product = torch.where(multiplied.abs() <= ctx.bound, gradient * product, 0.0)
        of_mean = gradient * (0.5 * mean)
        of_sides = [torch.addcmul(of_mean, of_product, right), torch.addcmul(of_mean, of_product, left)]
        terms = [0.5 * (left + right), multiplied.clamp(-ctx.bound, ctx.bound)]
        of_weights = [(gradient * term).sum(dim=(1, 2)) for term in terms]
        return torch.stack(of_sides, dim=2), torch.stack(of_weights, dim=1), None


def _columns(weights_NKO: Tensor) -> tuple[Tensor, ...]:
    """Per operation, the weights (N, 1, K, 1)."""
    return weights_NKO[:, None, :, :, None].unbind(dim=3)
