"""Batch norm of stacked edges: weighted by the mix, and folded into convolutions where only numbers count.

Axes: B batch, C channels, H height, W width, E edges, N mixes. Stacked tensors are (B, E * C, H, W), edge by
edge. Weights of edges are (E,) for one mix and (N, B, E) for N mixes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training.distributed import batch_norm


class BatchNorm(nn.Module):
    """Batch norm of stacked edges whose scale can be the mix: normalizing and weighting in one pass.

    ``momentum`` is the share of the newest batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    eps: ClassVar[float] = 1e-5

    def __init__(self, channels: int, *, affine: bool):
        super().__init__()
        self.momentum = 0.1
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        scale = self.weight
        if weight is not None:
            scale = weight.repeat_interleave(x.shape[1] // len(weight))
        return batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias, self.training, self.momentum, self.eps
        )


def only_values() -> bool:
    """Whether the numbers are all that is asked for: neither gradients nor a graph to export."""
    return not (torch.is_grad_enabled() or torch.compiler.is_exporting())


def conv_norm(conv: nn.Conv2d, norm: BatchNorm, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Convolution, then norm weighted by the mix; folded into one where running statistics make both linear."""
    if norm.training or weight is not None or not only_values():
        return norm(conv(x), weight)
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    shift = shift if norm.bias is None else shift + norm.bias
    kernel = conv.weight * scale.view(-1, 1, 1, 1)
    return F.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def add_weighted(total: Tensor | None, y: Tensor, weight: Tensor) -> Tensor:
    """``total`` plus stacked edges times their weights.

    y is (B, E * C, H, W) for weights (E,); for weights (N, B, E) it is (B, E * C, H, W) or (N * B, E * C, H,
    W), and the result is (N * B, E * C, H, W). ``total`` may be overwritten under N mixes, where no gradient
    is asked for.
    """
    scale = weight
    if weight.shape[-1] > 1:
        scale = weight.repeat_interleave(y.shape[1] // weight.shape[-1], dim=-1)
    scale = scale[..., None, None]
    if weight.dim() == 1:
        return y * scale if total is None else torch.addcmul(total, y, scale)
    y, scale = y.unflatten(0, (-1, weight.shape[1])), scale[:, :1]
    if total is None:
        return (y * scale).flatten(0, 1)
    total.unflatten(0, weight.shape[:2]).addcmul_(y, scale)
    return total
