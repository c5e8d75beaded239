"""The prepared images as input of the training: splits as tensors, the crop rule, and batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from models.images.batches import Batch, BatchStream, Preprocess, Split, batches
from models.search.program import Loaders
from models.training.seeds import generator
from stages.errors import UserError
from stages.images.data import ImageCard, read_card, read_split
from stages.images.params import RetrainParams, SearchParams
from stages.plumbing.mapped import announcer
from stages.strategies import needs_architecture_batches

EVALUATION_BATCH = 256  # images at once where there are no gradients
CALIBRATION_IMAGES = (
    2048  # at most, on which the batch statistics of averaged weights are measured after each epoch
)


@dataclass(frozen=True)
class Images:
    """Memory-mapped splits, and what data.json says about them."""

    train: Split
    val: Split
    card: ImageCard

    def preprocess(self, *, cutout: int, device: torch.device) -> Preprocess:
        """Random crop by an eighth of the side (4 pixels of 32), mirroring if the data allow it, and cutout."""
        return Preprocess(
            mean=tuple(self.card.mean),
            std=tuple(self.card.std),
            padding=min(self.card.image_shape[:2]) // 8,
            mirror=self.card.mirror,
            cutout=cutout,
            device=device,
        )


def read_images() -> Images:
    """What the stage prepare has written. Raises UserError when a file is missing or damaged."""
    return Images(split_of("train"), split_of("val"), read_card())


def split_of(name: str) -> Split:
    """A split as tensors that share memory with its files, of which the images are read at random."""
    images, labels = read_split(name)
    return Split(torch.from_numpy(images), torch.from_numpy(labels), announcer(images))


def device() -> torch.device:
    """The CUDA device if there is one (CUDA_VISIBLE_DEVICES selects it), otherwise the CPU.

    Of several, the one of this process, by its number, because another thread of the process has another default.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def loaders(data: Images, config: SearchParams) -> Loaders:
    """One random half of the training images trains the weights, the other half alpha; the split val gives the scores.

    ``search.images`` first selects that many images at random. Single-level search has one stream over all of them.
    """
    preprocess = data.preprocess(cutout=cutout_size(data.card, config), device=device())
    order = torch.randperm(len(data.train), generator=generator(config.seed, "halves"))[: config.images]
    if len(order) < 4:
        raise UserError(f"{len(order)} training images are too few to search with; add images")

    def stream(name: str, indices: torch.Tensor) -> BatchStream:
        return BatchStream(data.train, config.batch_size, preprocess, generator(config.seed, name), indices)

    halves = needs_architecture_batches(config)
    half = len(order) // 2
    train = stream("train batches", order[:half] if halves else order)
    # Shuffled, because data sets may be sorted by class and the curvature is measured on the first images.
    val = torch.randperm(len(data.val), generator=generator(config.seed, "validation order"))
    return Loaders(
        train,
        stream("architecture batches", order[half:]) if halves else None,
        valid=lambda: batches(data.val, EVALUATION_BATCH, preprocess, val),
        calibration=lambda: train.in_order(config.batch_size),
    )


def calibration(data: Images, preprocess: Preprocess, config: RetrainParams) -> Iterator[Batch]:
    """Training images, drawn at random and augmented as in training; the same after each epoch.

    They come in whole batches, because smaller ones would count as much as the others.
    """
    draws = generator(config.seed, "batch statistics")
    stream = BatchStream(data.train, config.batch_size, preprocess, draws)
    for _ in range(min(len(stream), max(CALIBRATION_IMAGES // config.batch_size, 1))):
        yield next(stream)


def cutout_size(card: ImageCard, config: SearchParams) -> int:
    """The side in pixels. "auto" is the published rule: cutout in the reduced spaces, none in the full space."""
    if config.cutout != "auto":
        return config.cutout
    return min(card.image_shape[:2]) // 2 if config.space in ("s1", "s2", "s3", "s4") else 0
