"""What is learned: image classification. Other tasks offer the same: a space, a supernet, a network and a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.images.evaluate import evaluating
from models.images.families import FoundNetwork, network_of, supernet_of
from models.images.nasbench201 import STAGES
from models.images.skeleton import check_image_size
from models.search.genotype import Genotype
from models.search.objective import Mix, Params
from models.search.spaces import SearchSpace
from models.training.distributed import averaging_gradients, mean_loss
from models.training.seeds import generator, seeded


class ImageTask:
    """Images of one size into classes.

    ``image_shape`` is (height, width, channels). Modules are initialized from ``seed``; ``generators`` are the
    random sources that modules draw from while they run. ``stages`` may differ from 3 in NAS-Bench-201 only.
    """

    def __init__(
        self, space: SearchSpace, image_shape: Sequence[int], classes: int, seed: int, *, stages: int = STAGES
    ):
        height, width, self.channels_in = image_shape
        check_image_size(height, width)
        self.space, self.classes, self.seed, self.stages = space, classes, seed, stages
        self.image_size = min(height, width)
        self.generators: Mapping[str, torch.Generator] = {"noise": generator(seed, "noise")}

    def supernet(self, *, channels: int, cells: int) -> nn.Module:
        """The supernet with freshly initialized weights."""
        with seeded(self.seed, "supernet"):
            return supernet_of(
                self.space,
                channels=channels,
                cells=cells,
                classes=self.classes,
                channels_in=self.channels_in,
                image_size=self.image_size,
                stages=self.stages,
                generator=self.generators["noise"],
            )

    def network(
        self, genotype: Genotype, *, channels: int, cells: int, auxiliary: bool = False
    ) -> FoundNetwork:
        """The network of a genotype with freshly initialized weights."""
        with seeded(self.seed, "network"):
            return network_of(
                genotype,
                channels=channels,
                cells=cells,
                classes=self.classes,
                channels_in=self.channels_in,
                image_size=self.image_size,
                stages=self.stages,
                auxiliary=auxiliary,
                generator=self.generators["noise"],
            )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of logits (B, classes) and labels (B,)."""
        return F.cross_entropy(output, target)


class BatchObjective:
    """The loss of one batch (x, target) under given weights and mix: what strategies see of data and network.

    Where several processes share the batch, (x, target) is this process's part; losses and gradients are those of the whole.
    """

    def __init__(self, task: ImageTask, module: nn.Module, x: Tensor, target: Tensor):
        self.task, self.module, self.x, self.target = task, module, x, target

    def output(self, params: Params, mix: Mix) -> Tensor:
        """The network's output for the batch."""
        params, mix = averaging_gradients(params, mix)
        return functional_call(self.module, dict(params), (self.x, mix))

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        return mean_loss(self.task.loss(self.output(params, mix), self.target))

    def evaluated(self, params: Params, mix: Mix) -> Tensor:
        with evaluating(self.module):
            return self(params, mix)

    @torch.no_grad()
    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        stacked = {group: torch.stack([mix[group] for mix in mixes]) for group in mixes[0]}
        with evaluating(self.module):
            outputs = self.output(params, stacked).unflatten(0, (len(mixes), -1))
        return mean_loss(torch.stack([self.task.loss(output, self.target) for output in outputs]))
