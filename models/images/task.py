"""Image classification as a search sees it: space, supernet, found network, loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.batch_statistics import recalibrated
from models.images.batches import Batch
from models.images.builders import FoundNetwork, network_of, supernet_of
from models.images.families import family_of
from models.images.sizes import STAGES, Channels, check_image_size
from models.images.spaces import search_space
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from models.training.seeds import generator, seeded


class ImageTask:
    """Classification of images of one size.

    ``image_shape`` is (height, width, channels). ``seed`` initializes the modules; ``generators`` are what
    they draw random numbers from while they run. ``stages`` differs from 3 only where the family of the space
    leaves it free.
    """

    metric, higher_is_better = "accuracy", True

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
        self, genotype: Genotype, *, channels: Channels, cells: int, auxiliary: bool = False
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

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The number of images whose most probable class is their label."""
        return {"accuracy": right_answers(output, target)}

    def recalibrated(
        self, supernet: nn.Module, output: Callable[[Tensor], Tensor], batches: Iterable[Batch]
    ) -> AbstractContextManager[None]:
        """Replaces the running batch statistics by those of ``batches`` within the block."""
        return recalibrated(supernet, output, batches)


def found_network(
    genotype: Genotype,
    image_shape: Sequence[int],
    classes: int,
    *,
    seed: int,
    channels: Channels,
    cells: int,
    stages: int,
    auxiliary: bool,
) -> FoundNetwork:
    """The network of a genotype for images of that shape (height, width, channels), freshly initialized."""
    space = search_space(family_of(genotype).full_space)
    task = ImageTask(space, image_shape, classes, seed, stages=stages)
    return task.network(genotype, channels=channels, cells=cells, auxiliary=auxiliary)


def right_answers(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the logits (B, classes) are highest at their label (B,)."""
    return (logits.detach().argmax(dim=1) == labels).sum()
