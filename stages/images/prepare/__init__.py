"""Turns a data set into arrays in stratified, seeded splits, and computes the numbers that later stages need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from models.images.sizes import check_image_size
from stages.errors import UserError
from stages.images.data import ImageCard
from stages.images.params import DataParams, Params
from stages.images.prepare.sources import SPLITS, Images, Labels, read_source
from stages.plumbing.files import sha256_of

_NOT_MIRRORED = ("digits", "svhn")  # a mirrored digit is not the same digit
_FEWEST = 3  # images per class: one for each split

Splits = dict[str, tuple[Images, Labels]]


def prepare(params: Params, folder: Path) -> ImageCard:
    """Writes ``SPLIT_images.npy``, uint8 (N, height, width, channels), and ``SPLIT_labels.npy``, int64 (N,)."""
    splits, classes = read(params.data)
    for name in SPLITS:
        np.save(folder / f"{name}_images.npy", splits[name][0])
        np.save(folder / f"{name}_labels.npy", splits[name][1])
    return describe(splits, classes, params.data, sha256_of(*sorted(folder.iterdir())))


def read(params: DataParams) -> tuple[Splits, list[str]]:
    """The data set in all three splits, and the names of its classes.

    Raises UserError when a network cannot be trained on the data.
    """
    source = read_source(params.name, Path(params.root).expanduser(), params.image_size)
    classes = list(source.classes)
    check_classes(source.splits["train"][1], classes)
    splits = split(dict(source.splits), params, classes)
    check_image_size(*splits["train"][0].shape[1:3])
    return splits, classes


def check_classes(labels: Labels, classes: Sequence[str]) -> None:
    """Raises UserError when a class has too few images to train and test with."""
    counts = np.bincount(labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise UserError(f"class {name!r} has no images; add some or remove the class")
        if count < _FEWEST:
            raise UserError(f"class {name!r} has {count} training images; each class needs {_FEWEST} or more")


def split(splits: Splits, params: DataParams, classes: Sequence[str]) -> Splits:
    """All three splits. Missing splits are taken from the training images, stratified and seeded."""
    for name, fraction in (("test", params.test_fraction), ("val", params.valid_fraction)):
        if name in splits and len(splits[name][1]):
            continue
        images, labels = splits["train"]
        count = max(round(fraction * len(labels)), len(classes))
        if len(labels) - count < len(classes):
            raise UserError(
                f"{len(labels)} training images are too few to set {count} aside as {name} split and keep one per"
                f" class; add images or lower data.{'test' if name == 'test' else 'valid'}_fraction"
            )
        kept, taken = train_test_split(
            np.arange(len(labels)), test_size=count, stratify=labels, random_state=params.seed
        )
        splits["train"] = images[np.sort(kept)], labels[np.sort(kept)]
        splits[name] = images[np.sort(taken)], labels[np.sort(taken)]
    return splits


def describe(splits: Splits, classes: list[str], params: DataParams, sha256: str) -> ImageCard:
    """The content of data.json. Mean and standard deviation are per channel of the training images, in [0, 1]."""
    images = splits["train"][0]
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[-1])]
    values = np.arange(256) / 255
    means = [float(np.average(values, weights=count)) for count in counts]
    deviations = [
        float(np.sqrt(np.average((values - mean) ** 2, weights=count)))
        for mean, count in zip(means, counts, strict=True)
    ]
    height, width, channels = images.shape[1:]
    return ImageCard(
        name=params.name,
        classes=classes,
        image_shape=(height, width, channels),
        counts={name: len(splits[name][1]) for name in SPLITS},
        mean=means,
        std=[deviation or 1.0 for deviation in deviations],  # a constant channel is not scaled
        mirror=params.name not in _NOT_MIRRORED if params.mirror == "auto" else params.mirror,
        sha256=sha256,
    )
