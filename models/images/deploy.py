"""The network as it is deployed: from decoded images to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.images.augment import normalize
from models.images.builders import FoundNetwork


class Deployed(nn.Module):
    """Images uint8 (B, H, W, C), as decoders return them -> float32 probabilities (B, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: FoundNetwork, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(list(mean)))
        self.register_buffer("std", torch.tensor(list(std)))

    def forward(self, image: Tensor) -> Tensor:
        logits, _ = self.network(normalize(image, self.mean, self.std))
        return torch.softmax(logits, dim=1)
