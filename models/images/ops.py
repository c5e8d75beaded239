"""The candidate operations of DARTS (arXiv 1806.09055, section 3.1) and NAS-Bench-201, and the S4 noise of RobustDARTS.

Operations are *stacked*: one module holds the same operation of all edges that leave a node, so that the
supernet computes them in one call (``edges`` > 1) and the found network with the same code (``edges`` = 1). The weight
of each edge in the mix enters as the scale of the last batch norm, so that weighting costs no pass of its own.

What an operation takes is told by its class: ``takes_relu``, the node through ReLU rather than the node itself;
``takes_repeated``, the node repeated once per edge along the channels; ``shared``, its result is the same for every
edge, so it is computed once and comes unweighted. Callers prepare each form of a node once.

Axes: B batch, C channels, H height, W width, E edges, N mixes. Stacked tensors are (B, E * C, H, W), edge by edge.
Edge weights are (E,) for one mix. Under N mixes at once, in evaluation mode, operations run unweighted on B images (the
same under every mix) or N * B, and ``add_weighted`` applies the weights, (N, B, E).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training.distributed import batch_norm, share, whole

_SMALL_SIDE = 8  # pixels: below, convolutions spend their time on padding
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
        if weight is not None:
            scale = weight.repeat_interleave(x.shape[1] // len(weight))
        return batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias, self.training, self.momentum, self.eps
        )


def _only_values() -> bool:
    """Whether nobody asks for more than the numbers: neither for gradients nor for a graph to export."""
    return not (torch.is_grad_enabled() or torch.compiler.is_exporting())


def conv_norm(conv: nn.Conv2d, norm: BatchNorm, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Convolution, then norm weighted by the mix; as one convolution where running statistics make both linear."""
    if norm.training or weight is not None or not _only_values():
        return norm(conv(x), weight)
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    shift = shift if norm.bias is None else shift + norm.bias
    kernel = conv.weight * scale.view(-1, 1, 1, 1)
    return F.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def add_weighted(total: Tensor | None, y: Tensor, weight: Tensor) -> Tensor:
    """``total`` plus stacked edges times their weights; ``total`` may be overwritten where no gradient is asked for."""
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


class Depthwise(nn.Conv2d):
    """Depthwise convolution that keeps the side (stride 1) or halves it, in the formulation that CPUs are fastest at.

    The result is that of nn.Conv2d. oneDNN differentiates depthwise convolutions quickly only without dilation and
    with at most 3 columns, else 10 to 30 times more slowly; the formulations below are made of the quick ones.
    """

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 1):
        padding = dilation * (kernel // 2)
        super().__init__(
            channels, channels, kernel, stride, padding, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        stride, dilation = self.stride[0], self.dilation[0]
        weight = _seen(self.weight, x.shape[2:], dilation)
        if x.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            padding = [dilation * (side // 2) for side in weight.shape[2:]]
            return F.conv2d(x, weight, None, stride, padding, dilation, self.groups)
        if dilation == 1:
            return _QuickGradient.apply(x, weight, stride)
        if stride == dilation:  # every tap falls on a pixel that is kept
            return _QuickGradient.apply(x[:, :, ::stride, ::stride], weight, 1)
        return merge_phases(_QuickGradient.apply(split_phases(x), weight, 1), x.shape)


def _seen(weight: Tensor, sides: Sequence[int], dilation: int) -> Tensor:
    """The taps of a kernel (C, 1, K, K) that ever meet an image of these sides rather than its padding."""
    for dim, side in zip((2, 3), sides, strict=True):
        size = weight.shape[dim]
        hidden = size // 2 - (side - 1) // dilation
        if hidden > 0:
            weight = weight.narrow(dim, hidden, size - 2 * hidden)
    return weight


def split_phases(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (4 B, C, H/2, W/2): the images of every second row and column, odd sides padded with zeros.

    A convolution of dilation 2 is one without dilation on each of the four.
    """
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return x.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def merge_phases(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of split_phases, for images of that shape (..., H, W)."""
    x = x.permute(0, 2, 3, 1).unflatten(0, (2, 2, -1)).permute(2, 3, 0, 4, 1, 5)
    return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)[:, :, : shape[-2], : shape[-1]]


class _QuickGradient(torch.autograd.Function):
    """Depthwise convolution without dilation whose weight gradient is computed 3 columns of the kernel at a time.

    On small sides the padding is made beforehand: oneDNN takes several times as long to skip it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        padding = [side // 2 for side in weight.shape[2:]]
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient_y,), (x, weight), stride = gradients, ctx.saved_tensors, ctx.stride

        def backward(x: Tensor, weight: Tensor, padding: Sequence[int], mask: Sequence[bool]) -> list[Tensor]:
            return torch.ops.aten.convolution_backward(
                gradient_y, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), mask
            )

        gradient_x = gradient_weight = None
        rows, columns = weight.shape[2:]
        if ctx.needs_input_grad[0]:
            gradient_x = backward(x, weight, (rows // 2, columns // 2), (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            small = min(x.shape[2:]) < _SMALL_SIDE
            top = rows // 2 if small else 0
            bottom = (gradient_y.shape[2] - 1) * stride + rows - x.shape[2] - top if small else 0
            blocks = []
            for first in range(0, columns, 3):
                block = weight[:, :, :, first : first + 3]
                padded, padding = x, (rows // 2, columns // 2)
                if small or columns > 3:
                    left = columns // 2 - first
                    right = (gradient_y.shape[3] - 1) * stride + block.shape[3] - x.shape[3] - left
                    padded, padding = F.pad(x, (left, right, top, bottom)), (rows // 2 - top, 0)
                blocks.append(backward(padded, block, padding, (False, True, False))[1])
            gradient_weight = torch.cat(blocks, dim=3)
        return gradient_x, gradient_weight, None


class SeparableConv(nn.Module):
    """Depthwise, pointwise, norm, ReLU, depthwise, pointwise, norm: ``sep_conv`` of DARTS after its first ReLU."""

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
        if self.edges > 1:  # joined with the channels last, or all that follows would be channels-first
            halves_BHWEC = [half.permute(0, 2, 3, 1).unflatten(3, (self.edges, -1)) for half in halves]
            return self.norm(torch.cat(halves_BHWEC, dim=4).flatten(3, 4).permute(0, 3, 1, 2), weight)
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
        return conv_norm(self.conv, self.norm, x, weight)


class Pool(nn.Module):
    """3x3 max or average pooling (padding not counted), in the supernet of DARTS followed by norm."""

    takes_relu = takes_repeated = False
    shared = True

    def __init__(self, kind: str, spec: OpSpec, *, norm: bool):
        super().__init__()
        self.kind, self.stride = kind, spec.stride
        self.norm = BatchNorm(spec.channels, affine=False) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        quick = x.device.type == "cpu" and _only_values()
        if self.kind == "max":
            y = _quick_max(x, self.stride) if quick else F.max_pool2d(x, 3, self.stride, 1)
        elif quick:
            y = _quick_average(x, self.stride)
        else:
            y = F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        return y if self.norm is None else self.norm(y)


def _quick_max(x: Tensor, stride: int) -> Tensor:
    """3x3 max pooling, rows before columns: PyTorch's own takes 3 times as long on the CPU and keeps where the maxima are."""
    for dim in (2, 3):
        lines = x.movedim(dim, 0)
        y = lines[::stride].clone()
        before, after = lines[stride - 1 :: stride][: len(y) - 1], lines[1::stride]
        torch.maximum(y[1:], before, out=y[1:])
        torch.maximum(y[: len(after)], after, out=y[: len(after)])
        x = y.movedim(0, dim)
    return x


def _quick_average(x: Tensor, stride: int) -> Tensor:
    """3x3 average pooling as a depthwise convolution; at the borders fewer pixels are counted."""
    channels = x.shape[1]
    y = F.conv2d(x, x.new_full((channels, 1, 3, 3), 1 / 9), None, stride, 1, 1, channels)
    for dim in (2, 3):
        side, last = x.shape[dim], y.shape[dim] - 1
        if side == 1:
            y *= 3
            continue
        y.select(dim, 0).mul_(1.5)
        if last * stride == side - 1:
            y.select(dim, last).mul_(1.5)
    return y


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
            shape = (whole(batch), height, width, self.width)
            noise = torch.randn(shape, generator=self.generator, dtype=x.dtype, device=device)
            y = share(noise).to(x.device).permute(0, 3, 1, 2)
        else:
            rows, columns = -(-height // _NOISE_TILE), -(-width // _NOISE_TILE)
            y = self.pattern.repeat(1, 1, rows, columns)[:, :, :height, :width].expand(batch, -1, -1, -1)
        return y if weight is None else add_weighted(None, y, weight)


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
        return conv_norm(self.conv, self.norm, F.relu(x))


class ReluReduce(nn.Module):
    """ReLU and FactorizedReduce: brings the input from before a reduction to the cell's channels and side."""

    def __init__(self, channels_in: int, channels: int, *, affine: bool):
        super().__init__()
        self.reduce = FactorizedReduce(channels_in, OpSpec(channels, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(F.relu(x))
