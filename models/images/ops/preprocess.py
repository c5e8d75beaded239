"""What surrounds the candidates: operations that bring inputs to a cell's size, and global average pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.images.ops.candidates import FactorizedReduce, OpSpec
from models.images.ops.norm import BatchNorm, conv_norm


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
