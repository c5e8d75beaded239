"""Distorts each image of a batch by operations drawn at random: RandAugment (arXiv 1909.13719), vectorized.

Each image goes through ``operations`` steps. In each, it draws one of ``OPERATIONS`` with equal chances, and
a sign where the operation has one. The magnitude, from 0 to 10, is the same for all; the ranges at 10 are
those of AutoAugment (arXiv 1805.09501, table 6).

Differences from the source:
- What leaves the image is replaced by black, as in the random crop, instead of by grey. Pixels are
  interpolated.
- "Color" is not the luminance of RGB, but the mean of the channels, because images may have any number of
  them.
- Nothing is mirrored, because a mirrored image may mean something else (data.mirror).
- Equalize computes with fractions. PIL divides whole numbers, and so does nothing to fewer than 256 pixels.

torchvision's RandAugment draws from PyTorch's global generator, which several threads share, so its draws
cannot be saved in a checkpoint. It also applies the same operations to all images of a batch.

All random numbers come from the caller's generator. Images are uint8 (B, H, W, C). Where several processes
share a batch, each draws for the whole batch. Axes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.training.distributed import full_batch_size, own_part

MAGNITUDES = 10.0  # the magnitude at which the ranges below are reached

# x float32 (B, H, W, C) of whole numbers in [0, 255], strength (B, 1, 1, 1) in [-1, 1] -> numbers like x,
# which the caller rounds and cuts to [0, 255]
Operation = Callable[[Tensor, Tensor], Tensor]


def rand_augment(
    images_BHWC: Tensor, operations: int, magnitude: float, generator: torch.Generator
) -> Tensor:
    """Applies ``operations`` operations, each drawn per image, of a magnitude in [0, 10]."""
    if operations == 0:
        return images_BHWC
    size = full_batch_size(len(images_BHWC))
    kinds = own_part(torch.randint(0, len(OPERATIONS), (operations, size), generator=generator), dim=1)
    signs = own_part(torch.randint(0, 2, (operations, size), generator=generator), dim=1) * 2 - 1
    images = images_BHWC
    for kind_B, sign_B in zip(kinds, signs, strict=True):
        images = _each_its_own(images, kind_B, sign_B.float() * (magnitude / MAGNITUDES))
    return images


def _each_its_own(images_BHWC: Tensor, kind_B: Tensor, strength_B: Tensor) -> Tensor:
    """The images, each after the operation of its number in ``OPERATIONS``."""
    done = images_BHWC.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        (chosen,) = torch.nonzero(kind_B == number, as_tuple=True)
        if len(chosen) and operation is not None:
            where = chosen.to(done.device)
            strength = strength_B[chosen].to(done.device)[:, None, None, None]
            found = operation(images_BHWC[where].float(), strength)
            done[where] = found.round().clamp(0, 255).to(torch.uint8)
    return done


def _affine(x_BHWC: Tensor, matrix_B23: Tensor) -> Tensor:
    """Each pixel is read, between its neighbors, at the place to which the matrix maps its own.

    Places are in pixels from the center, (column, row). Black lies outside.
    """
    _, height, width, _ = x_BHWC.shape
    half = torch.tensor([width / 2, height / 2], dtype=x_BHWC.dtype, device=x_BHWC.device)
    linear = matrix_B23[:, :, :2] * half / half[:, None]  # grid_sample counts half sides
    matrix = torch.cat([linear, matrix_B23[:, :, 2:] / half[:, None]], dim=2)
    x_BCHW = x_BHWC.permute(0, 3, 1, 2)
    grid = F.affine_grid(matrix, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, align_corners=False).permute(0, 2, 3, 1)


def _matrix(strength: Tensor, entries: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """The identity (B, 2, 3), with some entries replaced."""
    matrix = torch.eye(2, 3, dtype=strength.dtype, device=strength.device).repeat(len(strength), 1, 1)
    for (row, column), value in entries.items():
        matrix[:, row, column] = value
    return matrix


def rotate(x: Tensor, strength: Tensor) -> Tensor:
    """By up to 30 degrees around the center."""
    angle = strength.flatten() * math.radians(30)
    cosine, sine = angle.cos(), angle.sin()
    entries = {(0, 0): cosine, (0, 1): -sine, (1, 0): sine, (1, 1): cosine}
    return _affine(x, _matrix(strength, entries))


def shear_x(x: Tensor, strength: Tensor) -> Tensor:
    """Rows move by up to 0.3 of their distance from the middle."""
    return _affine(x, _matrix(strength, {(0, 1): 0.3 * strength.flatten()}))


def shear_y(x: Tensor, strength: Tensor) -> Tensor:
    """Columns move by up to 0.3 of their distance from the middle."""
    return _affine(x, _matrix(strength, {(1, 0): 0.3 * strength.flatten()}))


def translate_x(x: Tensor, strength: Tensor) -> Tensor:
    """By up to 0.45 of the width."""
    return _affine(x, _matrix(strength, {(0, 2): 0.45 * x.shape[2] * strength.flatten()}))


def translate_y(x: Tensor, strength: Tensor) -> Tensor:
    """By up to 0.45 of the height."""
    return _affine(x, _matrix(strength, {(1, 2): 0.45 * x.shape[1] * strength.flatten()}))


def _blend(x: Tensor, degenerate: Tensor, strength: Tensor) -> Tensor:
    """Away from ``degenerate`` where the strength is positive, otherwise towards it: factors 0.1 to 1.9."""
    return degenerate + (x - degenerate) * (1 + 0.9 * strength)


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Factors 0.1 to 1.9 of the values."""
    return _blend(x, torch.zeros_like(x), strength)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    """Factors 0.1 to 1.9 of the distance from the image's mean."""
    return _blend(x, x.mean(dim=(1, 2, 3), keepdim=True), strength)


def color(x: Tensor, strength: Tensor) -> Tensor:
    """Factors 0.1 to 1.9 of the distance from grey, which is the mean of the channels."""
    return _blend(x, x.mean(dim=3, keepdim=True), strength)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Factors 0.1 to 1.9 of the distance from the smoothed image; pixels at the border stay."""
    channels = x.shape[3]
    kernel = torch.ones(3, 3, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5
    kernel = (kernel / 13).expand(channels, 1, 3, 3)
    smooth = x.clone()
    if min(x.shape[1:3]) >= 3:
        inner = F.conv2d(x.permute(0, 3, 1, 2), kernel, groups=channels)
        smooth[:, 1:-1, 1:-1] = inner.permute(0, 2, 3, 1)
    return _blend(x, smooth, strength)


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """Leaves 8 to 4 bits of each value."""
    step = torch.exp2((4 * strength.abs()).round())
    return (x / step).floor() * step


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Inverts the values from 256 downwards to 0."""
    return torch.where(x >= 256 * (1 - strength.abs()), 255 - x, x)


def autocontrast(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel from 0 to 255; a channel of one value stays."""
    low, high = x.amin(dim=(1, 2), keepdim=True), x.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (x - low) * 255 / (high - low).clamp(min=1), x)


def equalize(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel's values as frequent as each other, as far as possible; a channel of one value stays."""
    batch, height, width, channels = x.shape
    values = x.long().permute(0, 3, 1, 2).reshape(batch * channels, -1)
    counts = torch.zeros(batch * channels, 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, values, torch.ones_like(values))
    before = counts.cumsum(dim=1) - counts  # pixels that are darker
    most = values.shape[1] - counts.gather(1, values.amax(dim=1, keepdim=True))
    spread = before.gather(1, values).to(x.dtype) * 255 / most.clamp(min=1)
    found = torch.where(most > 0, spread, values.to(x.dtype))
    return found.view(batch, channels, height, width).permute(0, 2, 3, 1)


OPERATIONS: Mapping[str, Operation | None] = {
    "identity": None,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
