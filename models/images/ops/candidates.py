"""The candidate operations of DARTS (arXiv 1806.09055, 3.1), NAS-Bench-201 and RobustDARTS (the noise of S4).

Operations are *stacked*: one module holds the same operation of all edges that leave a node, so that the
supernet computes them in one call (``edges`` > 1) and the found network uses the same code (``edges`` = 1).
The weight of each edge in the mix enters as the scale of the last batch norm, so that weighting costs no pass
of its own.

The class of an operation says what the operation takes and gives:

    takes_relu       the node after ReLU instead of the node itself
    takes_repeated   the node repeated along the channels, once per edge
    shared           one result for all edges, computed once and returned unweighted

Callers prepare each form of a node once.

Axes: B batch, C channels, H height, W width, E edges, N mixes. Stacked tensors are (B, E * C, H, W), edge by
edge. Weights of edges are (E,) for one mix. Under N mixes at once, in evaluation mode, operations run
unweighted on B images (the same under every mix) or on N * B images, and ``add_weighted`` applies the weights
(N, B, E).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.ops.depthwise import Depthwise
from models.images.ops.norm import BatchNorm, add_weighted, conv_norm, only_values
from models.images.ops.pooling import quick_average, quick_max
from models.training.distributed import full_batch_size, own_part

_NOISE_TILE = 8  # side in pixels of the fixed pattern that stands for noise in evaluation


@dataclass(frozen=True)
class OpSpec:
    """What an operation is built for; operations that draw random numbers draw them from ``generator``."""

    channels: int
    stride: int = 1
    edges: int = 1
    affine: bool = True
    generator: torch.Generator | None = None


class SeparableConv(nn.Module):
    """``sep_conv`` of DARTS after its first ReLU: twice depthwise, pointwise and norm, a ReLU between."""

    takes_relu = takes_repeated = True
    shared = False

    def __init__(self, kernel: int, spec: OpSpec):
        super().__init__()
        width, groups = spec.edges * spec.channels, spec.edges
        self.depthwise1 = Depthwise(width, kernel, spec.stride)
        self.pointwise1 = nn.Conv2d(width, width, 1, groups=groups, bias=False)
        self.norm1 = BatchNorm(width, affine=spec.affine)
        self.depthwise2 = Depthwise(width, kernel, 1)
        self.pointwise2 = nn.Conv2d(width, width, 1, groups=groups, bias=False)
        self.norm2 = BatchNorm(width, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        x = F.relu(conv_norm(self.pointwise1, self.norm1, self.depthwise1(x)), inplace=True)
        return conv_norm(self.pointwise2, self.norm2, self.depthwise2(x), weight)


class DilatedConv(nn.Module):
    """Depthwise with dilation 2, pointwise, norm: ``dil_conv`` of DARTS after its ReLU."""

    takes_relu = takes_repeated = True
    shared = False

    def __init__(self, kernel: int, spec: OpSpec):
        super().__init__()
        width = spec.edges * spec.channels
        self.depthwise = Depthwise(width, kernel, spec.stride, dilation=2)
        self.pointwise = nn.Conv2d(width, width, 1, groups=spec.edges, bias=False)
        self.norm = BatchNorm(width, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return conv_norm(self.pointwise, self.norm, self.depthwise(x), weight)


class FactorizedReduce(nn.Module):
    """Halves the side by two pointwise convolutions of stride 2, one of them shifted by a pixel; then norm.

    ``channels_in`` to ``spec.channels`` per edge, after ReLU. Odd sides are padded to the right and below,
    where the published code fails.
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
        if self.edges > 1:  # joined with the channels last, so that all that follows stays channels-last
            halves_BHWEC = [half.permute(0, 2, 3, 1).unflatten(3, (self.edges, -1)) for half in halves]
            return self.norm(torch.cat(halves_BHWEC, dim=4).flatten(3, 4).permute(0, 3, 1, 2), weight)
        return self.norm(torch.cat(halves, dim=1), weight)


class StandardConv(nn.Module):
    """Convolution and norm: ``nor_conv`` of NAS-Bench-201 (arXiv 2001.00326) after its ReLU.

    The side stays.
    """

    takes_relu = True
    takes_repeated = shared = False

    def __init__(self, kernel: int, spec: OpSpec):
        super().__init__()
        width = spec.edges * spec.channels
        self.conv = nn.Conv2d(spec.channels, width, kernel, spec.stride, kernel // 2, bias=False)
        self.norm = BatchNorm(width, affine=spec.affine)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return conv_norm(self.conv, self.norm, x, weight)


class Pool(nn.Module):
    """3x3 max or average pooling, padding not counted. In the supernet of DARTS a norm follows."""

    takes_relu = takes_repeated = False
    shared = True

    def __init__(self, kind: str, spec: OpSpec, *, norm: bool):
        super().__init__()
        self.kind, self.stride = kind, spec.stride
        self.norm = BatchNorm(spec.channels, affine=False) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        quick = x.device.type == "cpu" and only_values()
        if self.kind == "max":
            y = quick_max(x, self.stride) if quick else F.max_pool2d(x, 3, self.stride, 1)
        elif quick:
            y = quick_average(x, self.stride)
        else:
            y = F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        return y if self.norm is None else self.norm(y)


class Identity(nn.Module):
    """``skip_connect`` where the side stays."""

    takes_relu = takes_repeated = False
    shared = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Noise(nn.Module):
    """Standard normal noise in place of the input (RobustDARTS, space S4): an operation nobody should choose.

    In evaluation it is a fixed pattern of the same distribution, so that losses can be compared and networks
    exported.
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
            shape = (full_batch_size(batch), height, width, self.width)
            # Not drawn in bfloat16, which would give other numbers.
            dtype = torch.promote_types(x.dtype, torch.float32)
            noise = torch.randn(shape, generator=self.generator, dtype=dtype, device=device)
            y = own_part(noise).to(x).permute(0, 3, 1, 2)
        else:
            rows, columns = -(-height // _NOISE_TILE), -(-width // _NOISE_TILE)
            y = self.pattern.repeat(1, 1, rows, columns)[:, :, :height, :width].expand(batch, -1, -1, -1)
        return y if weight is None else add_weighted(None, y, weight)


Builder = Callable[[OpSpec, bool], nn.Module]  # (spec, whether a norm follows pooling) -> module

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
    """The operation of that name. ``none`` is the absent edge and never built.

    With ``pool_norm``, a norm follows pooling.
    """
    return _BUILDERS[name](spec, pool_norm)
