"""What the supernet and the found network have in common: stems, where the reductions are, how sides shrink.

Up to 127 pixels the network is the CIFAR one of DARTS (one 3x3 stem); from 128 on its ImageNet one, whose stems divide
the side by 8 before the first cell.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InvalidInput
from models.images.ops.norm import BatchNorm

LARGE_IMAGE = 128  # pixels: from this side on, the ImageNet stems
STEM_MULTIPLIER = 3  # channels of the CIFAR stem, in multiples of the first cells' channels
MINIMUM_CELLS = 3  # so that there is at least one normal cell


def reductions(cells: int) -> tuple[int, int]:
    """Which two of ``cells`` cells halve the side and double the channels: at one third and at two thirds."""
    return cells // 3, 2 * cells // 3


def side_after_reductions(image_size: int) -> int:
    """Side in pixels of the last feature maps of a square image."""
    halvings = 5 if image_size >= LARGE_IMAGE else 2
    return -(-image_size // 2**halvings)


def check_image_size(height: int, width: int) -> None:
    """Raises InvalidInput when the last feature maps would be smaller than 2x2 pixels."""
    if side_after_reductions(min(height, width)) < 2:
        raise InvalidInput(
            f"images of {height}x{width} pixels are smaller than the network needs (5x5); set data.image_size to 8 or more"
        )


class Stem(nn.Module):
    """Image (B, channels_in, H, W) to the two inputs of the first cell. ``reduced``: the second has half the first's side."""

    def __init__(self, channels_in: int, channels: int, image_size: int, *, affine: bool):
        super().__init__()
        self.reduced = self.is_large(image_size)
        if self.reduced:
            self.channels = channels
            self.stem0 = nn.Sequential(
                nn.Conv2d(channels_in, channels // 2, 3, 2, 1, bias=False),
                BatchNorm(channels // 2, affine=affine),
                nn.ReLU(),
                nn.Conv2d(channels // 2, channels, 3, 2, 1, bias=False),
                BatchNorm(channels, affine=affine),
            )
            self.stem1 = nn.Sequential(
                nn.Conv2d(channels, channels, 3, 2, 1, bias=False), BatchNorm(channels, affine=affine)
            )
        else:
            self.channels = STEM_MULTIPLIER * channels
            # The published stem is affine in the supernet too.
            self.stem0 = nn.Sequential(
                nn.Conv2d(channels_in, self.channels, 3, 1, 1, bias=False),
                BatchNorm(self.channels, affine=True),
            )

    @staticmethod
    def is_large(image_size: int) -> bool:
        """Whether images of that side (pixels) get the ImageNet stems."""
        return image_size >= LARGE_IMAGE

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem0(x)
        return (first, self.stem1(F.relu(first))) if self.reduced else (first, first)
