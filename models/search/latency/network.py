"""Latency by networks with two hidden layers of ReLUs (arXiv 2001.06392), several of them trained at once.

Each network has its own samples and its own initial weights. They are trained as one: a layer of all networks is one
batched product. The target is standardized, the loss is the squared error in relation to what was measured, and AdamW
descends it at a rate that rises and falls within the training (arXiv 1708.07120).

Axes: M networks, N samples, B samples of a batch, D columns of a code, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.training.optimizers import AdamW


@dataclass(frozen=True)
class Training:
    """Settings of the training; steps rise with the samples up to ``steps``."""

    hidden: int = 128
    epochs: int = 150
    steps: int = 3000
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.1


class Networks(nn.Module):
    """codes (N, D) -> ms (M, N) of all networks."""

    center: Tensor
    scale: Tensor

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], center: Tensor, scale: Tensor):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)

    def forward(self, codes_ND: Tensor) -> Tensor:
        return self.center + self.scale * self.standardized(codes_ND.expand(len(self.weights[0]), -1, -1))

    def standardized(self, x_MBD: Tensor) -> Tensor:
        """The standardized latency (M, B) by each network of its own codes."""
        y = x_MBD
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = torch.baddbmm(bias, torch.relu(y) if layer else y, weight)
        return y[..., 0]

    def member(self, index: int) -> Networks:
        """One of them, by itself."""
        weights, biases = (
            [layer.data[index][None] for layer in part] for part in (self.weights, self.biases)
        )
        return Networks(weights, biases, self.center, self.scale).requires_grad_(False)


def initial(
    sizes: Sequence[int], networks: int, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of the layers, uniform within 1 / sqrt(inputs) as torch's linear layers."""
    weights, biases = [], []
    for inputs, outputs in pairwise(sizes):
        bound = 1 / math.sqrt(inputs)
        weights.append(bound * (2 * torch.rand(networks, inputs, outputs, generator=generator) - 1))
        biases.append(bound * (2 * torch.rand(networks, 1, outputs, generator=generator) - 1))
    return weights, biases


def train(
    codes_ND: Tensor,
    ms_N: Tensor,
    weights_N: Tensor,
    samples: Sequence[Tensor],
    generator: torch.Generator,
    training: Training = Training(),
) -> Networks:
    """Networks as many as there are ``samples``, the indices (n,) of what each of them is trained on.

    ``weights_N`` are the weights of the squared errors in ms^2.
    """
    center, scale = ms_N.mean(), ms_N.std().clamp_min(1e-6 * ms_N.mean())
    sizes = (codes_ND.shape[1], training.hidden, training.hidden, 1)
    networks = Networks(*initial(sizes, len(samples), generator), center, scale)
    target_N, weights_N = (ms_N - center) / scale, weights_N / weights_N.mean()
    fewest = min(map(len, samples))
    batch = min(training.batch, fewest)
    steps = min(training.steps, math.ceil(training.epochs * fewest / batch))
    optimizer = AdamW(networks.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _share(step / steps)
        drawn = [some[torch.randint(len(some), (batch,), generator=generator)] for some in samples]
        chosen_MB = torch.stack(drawn)
        error_MB = networks.standardized(codes_ND[chosen_MB]) - target_N[chosen_MB]
        loss = (weights_N[chosen_MB] * error_MB.square()).mean(dim=1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return networks.requires_grad_(False)


def _share(progress: float) -> float:
    """Of the learning rate: a straight line up to 1 in the first tenth, then half a cosine to 0."""
    return min(10 * progress, (1 + math.cos(math.pi * max(progress - 0.1, 0) / 0.9)) / 2) + 1e-3
