"""Augmentation of whole batches: random crop, mirroring, cutout, random erasing.

All random numbers come from the caller's generator.

Where several processes share a batch (models/training/distributed.py), each draws for the whole batch and
augments its own images.

Images are uint8 (B, H, W, C), as on disk; ``normalize`` makes them float32 (B, C, H, W) in channels-last
memory.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.training.distributed import full_batch_size, own_part


def random_crop(images_BHWC: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pads by ``padding`` black pixels on each side and cuts each image to its old size at a random place."""
    if padding == 0:
        return images_BHWC
    batch, height, width, _ = images_BHWC.shape
    device = images_BHWC.device
    padded = F.pad(images_BHWC, (0, 0, padding, padding, padding, padding))
    offsets = torch.randint(0, 2 * padding + 1, (2, full_batch_size(batch), 1, 1), generator=generator)
    offsets = own_part(offsets, dim=1).to(device)
    rows = offsets[0] + torch.arange(height, device=device)[None, :, None]
    columns = offsets[1] + torch.arange(width, device=device)[None, None, :]
    return padded[torch.arange(batch, device=device)[:, None, None], rows, columns]


def random_mirror(images_BHWC: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image left to right with probability one half."""
    draws = own_part(torch.rand(full_batch_size(len(images_BHWC)), generator=generator))
    mirrored = draws.to(images_BHWC.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images_BHWC.flip(2), images_BHWC)


def normalize(images_BHWC: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W): scaled to [0, 1], then standardized per channel."""
    return ((images_BHWC.float() / 255.0 - mean_C) / std_C).permute(0, 3, 1, 2)


def cutout(x_BCHW: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Zeroes a square of ``size`` pixels around a random pixel of each image (arXiv 1708.04552)."""
    if size == 0:
        return x_BCHW
    batch, _, height, width = x_BCHW.shape
    device = x_BCHW.device

    def hidden(length: int) -> Tensor:
        centers = own_part(torch.randint(0, length, (full_batch_size(batch), 1), generator=generator))
        first = centers.to(device) - size // 2
        place = torch.arange(length, device=device)
        return (place >= first) & (place < first + size)

    square = hidden(height)[:, :, None] & hidden(width)[:, None, :]
    return x_BCHW.masked_fill(square[:, None], 0.0)


# Random erasing: the share of the image's area, and the ratio of height to width, of what is erased.
ERASED_AREA, ERASED_RATIO = (0.02, 0.4), (0.3, 1 / 0.3)


def random_erasing(x_BCHW: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Zeroes a rectangle of random area, shape and place in each image, with that probability.

    Source: random erasing (arXiv 1708.04896, algorithm 1).

    The area is uniform in [0.02, 0.4] of the image, as published; the logarithm of the ratio of the sides is
    uniform. Differs from the source in that a rectangle that is longer than the image is cut to its side,
    instead of being drawn again, so that every image takes the same number of draws. The erased pixels get
    the mean color, which is zero after normalization.
    """
    if probability == 0:
        return x_BCHW
    batch, _, height, width = x_BCHW.shape
    draws = own_part(torch.rand(5, full_batch_size(batch), generator=generator), dim=1)
    chance, area, ratio, top, left = draws.to(x_BCHW.device)
    area = (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0])) * height * width
    ratio = torch.exp(math.log(ERASED_RATIO[0]) + ratio * math.log(ERASED_RATIO[1] / ERASED_RATIO[0]))

    def erased(side: Tensor, place: Tensor, length: int) -> Tensor:
        side = side.round().clamp(1, length)[:, None]
        first = (place[:, None] * (length - side + 1)).floor()
        pixels = torch.arange(length, device=x_BCHW.device)
        return (pixels >= first) & (pixels < first + side)

    rows, columns = (
        erased((area * ratio).sqrt(), top, height),
        erased((area / ratio).sqrt(), left, width),
    )
    rectangle = rows[:, :, None] & columns[:, None, :] & (chance < probability)[:, None, None]
    return x_BCHW.masked_fill(rectangle[:, None], 0.0)
