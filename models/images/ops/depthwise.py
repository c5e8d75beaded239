"""Depthwise convolution in the formulations that oneDNN is fastest at on CPUs.

The result is that of nn.Conv2d.

oneDNN computes the gradients of depthwise convolutions quickly only without dilation and with at most 3
columns; otherwise it takes 10 to 30 times as long. The formulations here are made of the quick ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training.precision import converted

_SMALL_SIDE = 8  # pixels: on smaller sides, convolutions spend their time on padding
_QUICK_COLUMNS = 3  # of a kernel whose weight gradient oneDNN computes quickly


class Depthwise(nn.Conv2d):
    """Depthwise convolution that keeps the side (stride 1) or halves it (stride 2)."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 1):
        padding = dilation * (kernel // 2)
        super().__init__(
            channels, channels, kernel, stride, padding, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        stride, dilation = self.stride[0], self.dilation[0]
        # On the meta device costs are counted, and by convention taps that fall on padding count too.
        weight = self.weight if x.is_meta else _without_hidden_taps(self.weight, x.shape[2:], dilation)
        if x.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            padding = [dilation * (side // 2) for side in weight.shape[2:]]
            return F.conv2d(x, weight, None, stride, padding, dilation, self.groups)
        x, weight = converted(x, weight)
        if dilation == 1:
            return _QuickGradient.apply(x, weight, stride)
        if stride == dilation:  # every tap falls on a pixel that is kept
            return _QuickGradient.apply(x[:, :, ::stride, ::stride], weight, 1)
        return merge_phases(_QuickGradient.apply(split_phases(x), weight, 1), x.shape)


def _without_hidden_taps(weight: Tensor, sides: Sequence[int], dilation: int) -> Tensor:
    """The kernel (C, 1, K, K) less its outer taps that only meet padding on an image of these sides."""
    for dim, side in zip((2, 3), sides, strict=True):
        size = weight.shape[dim]
        hidden = size // 2 - (side - 1) // dilation
        if hidden > 0:
            weight = weight.narrow(dim, hidden, size - 2 * hidden)
    return weight


def split_phases(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (4 B, C, H/2, W/2): images of every second row and column. Pads odd sides with zeros.

    A convolution with dilation 2 is one without dilation on each of the four.
    """
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return x.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def merge_phases(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of split_phases, for images of shape (..., H, W)."""
    x = x.permute(0, 2, 3, 1).unflatten(0, (2, 2, -1)).permute(2, 3, 0, 4, 1, 5)
    return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)[:, :, : shape[-2], : shape[-1]]


class _QuickGradient(torch.autograd.Function):
    """Depthwise convolution without dilation whose weight gradient takes 3 columns of the kernel at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        padding = [side // 2 for side in weight.shape[2:]]
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient_y,), (x, weight) = gradients, ctx.saved_tensors
        gradient_x = gradient_weight = None
        if ctx.needs_input_grad[0]:
            padding = [side // 2 for side in weight.shape[2:]]
            gradient_x = _backward(gradient_y, x, weight, ctx.stride, padding, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            gradient_weight = _weight_gradient(gradient_y, x, weight, ctx.stride)
        return gradient_x, gradient_weight, None


def _weight_gradient(gradient_y: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The gradient of the weight, 3 columns at a time.

    On small sides the padding is made beforehand, because oneDNN takes several times as long to skip it.
    """
    rows, columns = weight.shape[2:]
    small = min(x.shape[2:]) < _SMALL_SIDE
    top = rows // 2 if small else 0
    bottom = (gradient_y.shape[2] - 1) * stride + rows - x.shape[2] - top if small else 0
    blocks = []
    for first in range(0, columns, _QUICK_COLUMNS):
        block = weight[:, :, :, first : first + _QUICK_COLUMNS]
        padded, padding = x, (rows // 2, columns // 2)
        if small or columns > _QUICK_COLUMNS:
            left = columns // 2 - first
            right = (gradient_y.shape[3] - 1) * stride + block.shape[3] - x.shape[3] - left
            padded, padding = F.pad(x, (left, right, top, bottom)), (rows // 2 - top, 0)
        blocks.append(_backward(gradient_y, padded, block, stride, padding, (False, True, False))[1])
    return torch.cat(blocks, dim=3)


def _backward(
    gradient_y: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: Sequence[int],
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The ``wanted`` ones among the gradients of input, weight and bias."""
    return torch.ops.aten.convolution_backward(
        gradient_y, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), wanted
    )
