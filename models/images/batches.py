"""Batches of images: seeded, resumable at any batch, without worker processes.

Images stay uint8 and may be memory-mapped. A batch is gathered, augmented and normalized as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.images.augment import cutout, normalize, random_crop, random_erasing, random_mirror
from models.images.rand_augment import rand_augment
from models.training.batches import ShuffledIndices

Batch = tuple[Tensor, Tensor]  # x float32 (B, C, H, W) channels-last, labels int64 (B,)


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, H, W, C) and labels int64 (N,).

    ``announce`` is told the indices of images before they are read, for images that may still be on disk.
    """

    images: Tensor
    labels: Tensor
    announce: Callable[[Iterable[int]], None] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def images_at(self, indices: Tensor | slice) -> Tensor:
        if self.announce:
            self.announce(range(len(self))[indices] if isinstance(indices, slice) else indices.tolist())
        return self.images[indices]


@dataclass(frozen=True)
class Preprocess:
    """How images become input. Everything between ``std`` and ``device`` is for training only."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int = 0  # pixels of the random crop
    mirror: bool = False
    cutout: int = 0  # side in pixels
    random_erasing: float = 0.0  # probability
    randaugment: int = 0  # operations per image
    randaugment_magnitude: float = 0.0  # 0 to 10
    device: torch.device = torch.device("cpu")

    def plain(self, split: Split, indices: Tensor | slice) -> Batch:
        """The images and labels at these indices, without augmentation."""
        return self._normalized(split.images_at(indices)), self._on_device(split.labels[indices])

    def augmented(self, split: Split, indices: Tensor, generator: torch.Generator) -> Batch:
        """The images and labels at these indices, augmented with draws from the generator."""
        images = random_crop(split.images_at(indices), self.padding, generator)
        if self.mirror:
            images = random_mirror(images, generator)
        if self.randaugment:
            images = self._on_device(images)
            images = rand_augment(images, self.randaugment, self.randaugment_magnitude, generator)
        x = cutout(self._normalized(images), self.cutout, generator)
        x = random_erasing(x, self.random_erasing, generator)
        return x, self._on_device(split.labels[indices])

    def _on_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda" and not tensor.is_cuda:
            tensor = tensor.pin_memory()  # so that the copy waits for nothing
        return tensor.to(self.device, non_blocking=True)

    def _normalized(self, images: Tensor) -> Tensor:
        images = self._on_device(images)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=self.device)
        return normalize(images, mean, torch.tensor(self.std, dtype=torch.float32, device=self.device))


class BatchStream:
    """An endless stream of augmented batches; ``indices`` restricts it to a part of the split.

    One generator gives the order and the draws of the augmentation. The order, and where in it the stream is,
    are kept by ``ShuffledIndices``.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        preprocess: Preprocess,
        generator: torch.Generator,
        indices: Tensor | None = None,
    ):
        self.split, self.preprocess, self.generator = split, preprocess, generator
        self.indices = torch.arange(len(split)) if indices is None else indices
        self.shuffled = ShuffledIndices(self.indices, batch_size, generator)

    def __len__(self) -> int:
        """Batches in one pass."""
        return len(self.shuffled)

    def __next__(self) -> Batch:
        return self.preprocess.augmented(self.split, next(self.shuffled), self.generator)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """One pass over the stream's images in order, without augmentation. The stream stays where it is."""
        yield from batches(self.split, batch_size, self.preprocess, self.indices)

    def state_dict(self) -> dict[str, Any]:
        return self.shuffled.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shuffled.load_state_dict(state)


def batches(
    split: Split, batch_size: int, preprocess: Preprocess, indices: Tensor | None = None
) -> Iterator[Batch]:
    """One pass over a split in order, without augmentation. The last batch may be smaller."""
    for start in range(0, len(split) if indices is None else len(indices), batch_size):
        window = slice(start, start + batch_size)
        yield preprocess.plain(split, window if indices is None else indices[window])
