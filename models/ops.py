"""The candidate operations of DARTS (arXiv 1806.09055, section 3.1) and NAS-Bench-201, and the S4 noise of RobustDARTS.

Operations are *stacked*: one module holds the same operation of all edges that leave a node, so that the
supernet computes them in one call (``edges`` > 1) and the found network with the same code (``edges`` = 1). The weight
of each edge in the mix enters as the scale of the last batch norm, so that weighting costs no pass of its own.

What an operation takes is told by its class: ``takes_relu``, the node through ReLU rather than the node itself;
``takes_repeated``, the node repeated once per edge along the channels; ``shared``, its result is the same for every
edge, so it is computed once and comes unweighted. Callers prepare each form of a node once.

Axes: B batch, C channels, H height, W width, E edges, N mixes. Stacked tensors are (B, E * C, H, W), edge by edge.
Edge weights are (E,) for one mix, or (N, B, E) for N mixes at once in evaluation mode; then the result is
(N * B, E * C, H, W), whether the input had B images (the same under every mix) or N * B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NOISE_TILE = 8  # side in pixels of the fixed pattern that stands for noise in evaluation


@dataclass(frozen=True)
class OpSpec:
    """What an operation is built for; ``generator`` feeds the operations that draw random numbers."""

    channels: int
    stride: int = 1
    edges: int = 1
    affine: bool = True
    generator: torch.Generator | None = None


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
        if weight is not None and weight.dim() == 1:
            scale = weight.repeat_interleave(x.shape[1] // len(weight))
        y = F.batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias, self.training, self.momentum, self.eps
        )
        return y if weight is None or weight.dim() == 1 else scale_edges(y, weight)


def scale_edges(x: Tensor, weight: Tensor) -> Tensor:
    """Stacked edges times their weights, for one mix or for N."""
    scale = weight.repeat_interleave(x.shape[1] // weight.shape[-1], dim=-1)[..., None, None]
    if weight.dim() == 1:
        return x * scale
    return (x.unflatten(0, (-1, weight.shape[1])) * scale).flatten(0, 1)


class SeparableConv(nn.Module):
    """Depthwise, pointwise, norm, ReLU, depthwise, pointwise, norm: ``sep_conv`` of DARTS after its first ReLU."""

    takes_relu = takes_repeated = True
    shared = False

    def __init__(self, kernel: int, spec: OpSpec):
        super().__init__()
        width, groups, padding = spec.edges * spec.channels, spec.edges, kernel // 2
        self.depthwise1 = nn.Conv2d(width, width, kernel, spec.stride, padding, groups=width, bias=False)
        self.pointwise1 = nn.Conv2d(width, width, 1, groups=groups, bias=False)
        self.norm1 = BatchNorm(width, affine=spec.affine)
        self.depthwise2 = nn.Conv2d(width, width, kernel, 1, padding, groups=width, bias=False)
        self.pointwise2 = nn.Conv2d(width, width, 1, groups=groups, bias=False)
        self.norm2 = BatchNorm(width, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        x = F.relu(self.norm1(self.pointwise1(self.depthwise1(x))))
        return self.norm2(self.pointwise2(self.depthwise2(x)), weight)


class DilatedConv(nn.Module):
    """Depthwise with dilation 2, pointwise, norm: ``dil_conv`` of DARTS after its ReLU."""

    takes_relu = takes_repeated = True
    shared = False

    def __init__(self, kernel: int, spec: OpSpec):
        super().__init__()
        width = spec.edges * spec.channels
        self.depthwise = nn.Conv2d(
            width, width, kernel, spec.stride, kernel - 1, dilation=2, groups=width, bias=False
        )
        self.pointwise = nn.Conv2d(width, width, 1, groups=spec.edges, bias=False)
        self.norm = BatchNorm(width, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(x)), weight)


class FactorizedReduce(nn.Module):
    """Half the side by two pointwise convolutions of stride 2, one of them shifted by a pixel, and norm.

    ``channels_in`` to ``spec.channels`` per edge, after ReLU. Odd sides are padded to the right and below, where the
    published code fails.
    """

    takes_relu = True
    takes_repeated = shared = False

    def __init__(self, channels_in: int, spec: OpSpec):
        super().__init__()
        half = spec.channels // 2
        self.edges = spec.edges
        self.even = nn.Conv2d(channels_in, spec.edges * half, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels_in, spec.edges * (spec.channels - half), 1, 2, bias=False)
        self.norm = BatchNorm(spec.edges * spec.channels, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        halves = (self.even(x), self.odd(F.pad(x, (-1, 1, -1, 1))))
        if self.edges > 1:
            halves = tuple(half.unflatten(1, (self.edges, -1)) for half in halves)
            return self.norm(torch.cat(halves, dim=2).flatten(1, 2), weight)
        return self.norm(torch.cat(halves, dim=1), weight)


class StandardConv(nn.Module):
    """Convolution and norm: ``nor_conv`` of NAS-Bench-201 (arXiv 2001.00326) after its ReLU. The side stays."""

    takes_relu = True
    takes_repeated = shared = False

    def __init__(self, kernel: int, spec: OpSpec):
        super().__init__()
        width = spec.edges * spec.channels
        self.conv = nn.Conv2d(spec.channels, width, kernel, spec.stride, kernel // 2, bias=False)
        self.norm = BatchNorm(width, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.norm(self.conv(x), weight)


class Pool(nn.Module):
    """3x3 max or average pooling (padding not counted), in the supernet of DARTS followed by norm."""

    takes_relu = takes_repeated = False
    shared = True

    def __init__(self, kind: str, spec: OpSpec, *, norm: bool):
        super().__init__()
        self.kind, self.stride = kind, spec.stride
        self.norm = BatchNorm(spec.channels, affine=False) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "max":
            x = F.max_pool2d(x, 3, self.stride, 1)
        else:
            x = F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        return x if self.norm is None else self.norm(x)


class Identity(nn.Module):
    """``skip_connect`` where the side stays."""

    takes_relu = takes_repeated = False
    shared = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Noise(nn.Module):
    """Standard normal noise in place of the input (RobustDARTS, space S4): an operation nobody should choose.

    In evaluation a fixed pattern of the same distribution, so that losses can be compared and exported.
    """

    takes_relu = takes_repeated = shared = False
    pattern: Tensor

    def __init__(self, spec: OpSpec):
        super().__init__()
        self.stride, self.generator = spec.stride, spec.generator
        self.width = spec.edges * spec.channels
        fixed = torch.Generator().manual_seed(0)
        shape = (1, self.width, _NOISE_TILE, _NOISE_TILE)
        pattern = torch.randn(shape, generator=fixed, device="cpu")
        self.register_buffer("pattern", pattern.to(torch.get_default_device()), persistent=False)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        batch, height, width = x.shape[0], -(-x.shape[2] // self.stride), -(-x.shape[3] // self.stride)
        if self.training:
            device = x.device if self.generator is None else self.generator.device
            shape = (batch, height, width, self.width)
            noise = torch.randn(shape, generator=self.generator, dtype=x.dtype, device=device)
            y = noise.to(x.device).permute(0, 3, 1, 2)
        else:
            rows, columns = -(-height // _NOISE_TILE), -(-width // _NOISE_TILE)
            y = self.pattern.repeat(1, 1, rows, columns)[:, :, :height, :width].expand(batch, -1, -1, -1)
        return y if weight is None else scale_edges(y, weight)


Builder = Callable[[OpSpec, bool], nn.Module]  # (spec, norm after pooling?) -> module

_BUILDERS: Mapping[str, Builder] = {
    "max_pool_3x3": lambda spec, norm: Pool("max", spec, norm=norm),
    "avg_pool_3x3": lambda spec, norm: Pool("average", spec, norm=norm),
    "skip_connect": lambda spec, _: Identity() if spec.stride == 1 else FactorizedReduce(spec.channels, spec),
    "sep_conv_3x3": lambda spec, _: SeparableConv(3, spec),
    "sep_conv_5x5": lambda spec, _: SeparableConv(5, spec),
    "dil_conv_3x3": lambda spec, _: DilatedConv(3, spec),
    "dil_conv_5x5": lambda spec, _: DilatedConv(5, spec),
    "nor_conv_1x1": lambda spec, _: StandardConv(1, spec),
    "nor_conv_3x3": lambda spec, _: StandardConv(3, spec),
    "noise": lambda spec, _: Noise(spec),
}


def build(name: str, spec: OpSpec, *, pool_norm: bool = False) -> nn.Module:
    """The operation of that name (``none`` is the absent edge, never built); ``pool_norm`` has pooling followed by norm."""
    return _BUILDERS[name](spec, pool_norm)


class GlobalAveragePool(nn.Module):
    """(B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class ReluConvNorm(nn.Module):
    """ReLU, 1x1 convolution, norm: brings a cell's input to the cell's channels."""

    def __init__(self, channels_in: int, channels: int, *, affine: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm = BatchNorm(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))


class ReluReduce(nn.Module):
    """ReLU and FactorizedReduce: brings the input from before a reduction to the cell's channels and side."""

    def __init__(self, channels_in: int, channels: int, *, affine: bool):
        super().__init__()
        self.reduce = FactorizedReduce(channels_in, OpSpec(channels, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(F.relu(x))
