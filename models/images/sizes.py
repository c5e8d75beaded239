"""Sizes of networks and images: which sides networks take, where they halve them. Needs no torch.

Networks of DARTS have 3 stages. Up to 127 pixels they are the CIFAR ones of DARTS (one 3x3 stem); from 128 on
the ImageNet ones, whose stems divide the side by 8 before the first cell.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.errors import InvalidInput

Channels = int | Sequence[int]  # of the first cells, doubled from stage to stage; or those of every stage

STAGES = 3  # between which the side is halved and the channels are doubled
MINIMUM_CELLS = 3  # of a DARTS network, so that at least one of them is a normal cell
LARGE_IMAGE = 128  # pixels: from this side on, the ImageNet stems


def reductions(cells: int) -> tuple[int, int]:
    """Which two of ``cells`` cells halve the side and double the channels: at one third and at two thirds."""
    return cells // 3, 2 * cells // 3


def widths(channels: Channels, stages: int = STAGES) -> tuple[int, ...]:
    """The channels of every stage."""
    if isinstance(channels, int):
        return tuple(channels * 2**stage for stage in range(stages))
    assert len(channels) == stages, channels
    return tuple(channels)


def is_large(image_size: int) -> bool:
    """Whether images of that side (pixels) get the ImageNet stems."""
    return image_size >= LARGE_IMAGE


def side_after_reductions(image_size: int) -> int:
    """Side in pixels of the last feature maps of a square image."""
    halvings = 5 if is_large(image_size) else 2
    return -(-image_size // 2**halvings)


def check_image_size(height: int, width: int) -> None:
    """Raises InvalidInput when the last feature maps would be smaller than 2x2 pixels."""
    if side_after_reductions(min(height, width)) < 2:
        raise InvalidInput(
            f"images of {height}x{width} pixels are smaller than the network needs (5x5);"
            " set data.image_size to 8 or more"
        )
