"""What is learned: image classification. Other tasks offer the same: a space, a supernet, a network and a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.evaluate import evaluating
from models.genotype import Genotype
from models.network import Network
from models.seeds import generator, seeded
from models.skeleton import check_image_size
from models.spaces import SearchSpace
from models.strategies import Mix, Params
from models.supernet import Supernet


class ImageTask:
    """Images of one size into classes.

    ``image_shape`` is (height, width, channels). Modules are initialized from ``seed``; ``generators`` are the
    random sources that modules draw from while they run.
    """

    def __init__(self, space: SearchSpace, image_shape: Sequence[int], classes: int, seed: int):
        height, width, self.channels_in = image_shape
        check_image_size(height, width)
        self.space, self.classes, self.seed = space, classes, seed
        self.image_size = min(height, width)
        self.generators: Mapping[str, torch.Generator] = {"noise": generator(seed, "noise")}

    def supernet(self, *, channels: int, cells: int) -> Supernet:
        """The supernet with freshly initialized weights."""
        with seeded(self.seed, "supernet"):
            return Supernet(
                self.space,
                channels=channels,
                cells=cells,
                classes=self.classes,
                channels_in=self.channels_in,
                image_size=self.image_size,
                generator=self.generators["noise"],
            )

    def network(self, genotype: Genotype, *, channels: int, cells: int, auxiliary: bool = False) -> Network:
        """The network of a genotype with freshly initialized weights."""
        with seeded(self.seed, "network"):
            return Network(
                genotype,
                channels=channels,
                cells=cells,
                classes=self.classes,
                channels_in=self.channels_in,
                image_size=self.image_size,
                auxiliary=auxiliary,
                generator=self.generators["noise"],
            )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of logits (B, classes) and labels (B,)."""
        return F.cross_entropy(output, target)


class BatchObjective:
    """The loss of one batch (x, target) under given weights and mix: what strategies see of data and network."""

    def __init__(self, task: ImageTask, module: nn.Module, x: Tensor, target: Tensor):
        self.task, self.module, self.x, self.target = task, module, x, target

    def output(self, params: Params, mix: Mix) -> Tensor:
        """The network's output for the batch."""
        return functional_call(self.module, dict(params), (self.x, mix))

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        return self.task.loss(self.output(params, mix), self.target)

    @torch.no_grad()
    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        stacked = {group: torch.stack([mix[group] for mix in mixes]) for group in mixes[0]}
        with evaluating(self.module):
            outputs = self.output(params, stacked).unflatten(0, (len(mixes), -1))
        return torch.stack([self.task.loss(output, self.target) for output in outputs])
