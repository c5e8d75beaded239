"""The stems that the supernet and the found networks of DARTS share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.images.ops.norm import BatchNorm
from models.images.sizes import is_large

STEM_MULTIPLIER = 3  # channels of the CIFAR stem, in multiples of the first cells' channels


class Stem(nn.Module):
    """Image (B, channels_in, H, W) to the two inputs of the first cell.

    ``reduced`` says whether the second input has half the side of the first, as in the ImageNet stems.
    """

    def __init__(self, channels_in: int, channels: int, image_size: int, *, affine: bool):
        super().__init__()
        self.reduced = is_large(image_size)
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem0(x)
        return (first, self.stem1(F.relu(first))) if self.reduced else (first, first)
