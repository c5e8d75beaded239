"""The exponential moving average of the weights, which a training validates and keeps instead of the last.

Sources: Polyak and Juditsky 1992 for averages of iterates; TensorFlow's ``ExponentialMovingAverage`` with
``num_updates`` for the exponential form whose decay warms up.

Only weights are averaged. Running batch statistics belong to the weights they were measured with, so those
of the average are measured anew (models/images/batch_statistics.py), as in stochastic weight averaging
(arXiv 1803.05407, section 3.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """average <- d average + (1 - d) weights after each step.

    At step t = 1, 2, ... the decay is d = min(decay, (1 + t) / (10 + t)). It grows from 2/11, so that the
    average soon forgets the initial weights, even in a training of a few hundred steps.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.average = {name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes in the weights after a step."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, weight in module.named_parameters():
            self.average[name].lerp_(weight, share)

    @contextlib.contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """Within the block, the module has the averaged weights."""
        own = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        try:
            _load(module, self.average)
            yield
        finally:
            _load(module, own)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, weight in self.average.items():
            weight.copy_(state["average"][name])


@torch.no_grad()
def _load(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    for name, weight in module.named_parameters():
        weight.copy_(weights[name])
