"""The weighted sum of operations on the same numbers, in one node of the graph of gradients.

What autograd would record per operation takes most of the time of a small recurrent step.

Axes: N mixes, B batch, K edges, H hidden, O operations.
"""

# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda z: z,
}
# The derivative from the argument and the value.
_SLOPES: Mapping[str, Callable[[Tensor, Tensor], Tensor | float]] = {
    "tanh": lambda z, y: 1.0 - y * y,
    "relu": lambda z, y: (z > 0).to(z.dtype),
    "sigmoid": lambda z, y: y - y * y,
    "identity": lambda z, y: 1.0,
}


def mixed_activation(z_NBKH: Tensor, weights_NKO: Tensor, operations: Sequence[str]) -> Tensor:
    """sum_o weight_ko o(z), (N, B, K, H). ``none`` adds nothing. Twice differentiable."""
    return _Mixed.apply(z_NBKH.to(weights_NKO.dtype), weights_NKO, tuple(operations))


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weights: Tensor, operations: tuple[str, ...]) -> Tensor:
        ctx.operations = operations
        values = [FUNCTIONS[op](z) for op in operations if op != "none"]
        ctx.save_for_backward(z, weights, *values)
        total = None
        for weight, value in zip(_columns(weights, operations), values, strict=True):
            total = value * weight if total is None else total.addcmul_(value, weight)
        return torch.zeros_like(z) if total is None else total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        z, weights, *values = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives, in which the values depend on z
            values = [FUNCTIONS[op](z) for op in ctx.operations if op != "none"]
        of_z = of_weights = None
        if ctx.needs_input_grad[0]:
            columns = _columns(weights, ctx.operations)
            names = [op for op in ctx.operations if op != "none"]
            slope = torch.zeros_like(z)
            for op, weight, value in zip(names, columns, values, strict=True):
                slope = slope + _SLOPES[op](z, value) * weight
            of_z = gradient * slope
        if ctx.needs_input_grad[1]:
            found, rest = [], iter(values)
            for op in ctx.operations:
                if op == "none":
                    found.append(weights.new_zeros(weights.shape[:2]))
                else:
                    found.append((gradient * next(rest)).sum(dim=1).sum(dim=-1))
            of_weights = torch.stack(found, dim=-1)
        return of_z, of_weights, None


def _columns(weights_NKO: Tensor, operations: Sequence[str]) -> list[Tensor]:
    """Per operation but ``none``, the weights (N, 1, K, 1)."""
    columns = weights_NKO[:, None, :, :, None].unbind(dim=3)
    return [column for op, column in zip(operations, columns, strict=True) if op != "none"]
