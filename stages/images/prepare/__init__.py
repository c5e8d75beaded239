"""Turns a data set into arrays in stratified, seeded splits, and computes the numbers that later stages need."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from models.images.sizes import check_image_size
from stages.errors import UserError
from stages.images.data import ImageCard
from stages.images.params import DataParams, Params
from stages.images.prepare import duplicates
from stages.images.prepare.duplicates import Duplicates, Pictures
from stages.images.prepare.pictures import Member
from stages.images.prepare.rows import FileRows, Labels
from stages.images.prepare.sources import SPLITS, Source, read_source
from stages.images.prepare.staging import Count, Staged, Written, decode_all, key_of
from stages.plumbing.code import code_of, packages_of
from stages.plumbing.counting import counting
from stages.plumbing.files import sha256_of
from stages.plumbing.status import STATE

_NOT_MIRRORED = ("digits", "svhn")  # a mirrored digit is not the same digit
_FEWEST = 3  # images per class: one for each split
_NOTHING: Counter[str] = Counter()
_FEWEST_TO_SEARCH = 2  # of the training images that remain: one for the weights, one for the architecture

# The rows of each split: from which split of the source, and which of its rows.
Choice = dict[str, tuple[str, NDArray[np.int64]]]


def prepare(params: Params, folder: Path) -> ImageCard:
    """Writes ``SPLIT_images.npy``, uint8 (N, height, width, channels), and ``SPLIT_labels.npy``, int64 (N,).

    Pictures are decoded once, on all cores, and an interrupted stage goes on with those that are missing.
    Raises UserError when a network cannot be trained on the data.
    """
    with counting("prepare", resumed="pictures") as count:
        return prepare_in(STATE / "prepare", params.data, folder, count)


def prepare_in(state: Path, params: DataParams, folder: Path, count: Count = lambda *_: None) -> ImageCard:
    """The same, with what an interruption leaves in a folder below ``state``."""
    source = read_source(params, count)
    check_classes(source.splits["train"].labels, source.classes, source.left_out)
    check_image_size(*source.splits["train"].shape[:2])
    work = state / _key(source, params)
    for leftover in state.glob("*/*.u8"):  # of other data or settings
        if leftover.parent != work:
            shutil.rmtree(leftover.parent, ignore_errors=True)
    staged = decode_all(work, source.splits, count)
    choice, found = choose(source, staged, params)
    counts = _write(folder, staged, choice)
    card = describe(source, choice, found, counts, params, sha256_of(*sorted(folder.iterdir())))
    shutil.rmtree(work, ignore_errors=True)
    return card


def check_classes(labels: Labels, classes: Sequence[str], left_out: Counter[str] = _NOTHING) -> None:
    """Raises UserError when a class has too few images to train and test with."""
    counts = np.bincount(labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common(5))
            seen = f" (left out of all folders: {reasons})" if reasons else ""
            raise UserError(f"class {name!r} has no images{seen}; add some or remove the class")
        if count < _FEWEST:
            raise UserError(f"class {name!r} has {count} training images; each class needs {_FEWEST} or more")


def choose(source: Source, staged: Mapping[str, Staged], params: DataParams) -> tuple[Choice, Duplicates]:
    """Which picture goes into which split, and what occurs more than once."""
    digests = {name: part.digests for name, part in staged.items()}
    everything = {name: Pictures(rows.labels, digests[name]) for name, rows in source.splits.items()}
    rows = {name: np.arange(len(pictures.labels)) for name, pictures in everything.items()}
    dropped = 0
    if params.duplicates == "drop":
        keep = duplicates.kept(everything)
        rows = {name: np.flatnonzero(keep[name]) for name in rows}
        dropped = int(sum((~mask).sum() for mask in keep.values()))
        check_classes(source.splits["train"].labels[rows["train"]], source.classes)
    labels = {name: everything[name].labels[chosen] for name, chosen in rows.items()}
    choice = {
        name: (origin, rows[origin][indices])
        for name, (origin, indices) in split(labels, params, source.classes).items()
    }
    found = duplicates.find(
        {
            name: Pictures(everything[origin].labels[indices], digests[origin][indices])
            for name, (origin, indices) in choice.items()
        },
        source.classes,
    )
    if params.duplicates == "refuse" and (found.copies or found.two_labels):
        pairs = [f"{source.splits[split].name(row)}" for split, row in duplicates.first_pair(everything)]
        raise UserError(
            f"{found.in_words()} (for example {' and '.join(pairs)}); remove the copies, or set data.duplicates to"
            " warn or drop"
        )
    return choice, found.model_copy(update={"dropped": dropped})


def split(labels: Mapping[str, Labels], params: DataParams, classes: Sequence[str]) -> Choice:
    """All three splits. Missing splits are taken from the training images, stratified and seeded."""
    choice: Choice = {name: (name, np.arange(len(own))) for name, own in labels.items() if len(own)}
    for name, fraction in (("test", params.test_fraction), ("val", params.valid_fraction)):
        if name in choice:
            continue
        _, indices = choice["train"]
        own = labels["train"][indices]
        count = max(round(fraction * len(own)), len(classes))
        if len(own) - count < len(classes):
            raise UserError(
                f"{len(own)} training images are too few to set {count} aside as {name} split and keep one per"
                f" class; add images or lower data.{'test' if name == 'test' else 'valid'}_fraction"
            )
        kept, taken = train_test_split(
            np.arange(len(own)), test_size=count, stratify=own, random_state=params.seed
        )
        choice["train"] = "train", indices[np.sort(kept)]
        choice[name] = "train", indices[np.sort(taken)]
    left = np.bincount(labels["train"][choice["train"][1]], minlength=len(classes))
    if (fewest := int(left.min())) < _FEWEST_TO_SEARCH:
        raise UserError(
            f"class {classes[int(left.argmin())]!r} has {fewest} images to train on after the other splits have theirs;"
            f" the search needs {_FEWEST_TO_SEARCH} or more, so add images to the class"
        )
    return choice


def describe(
    source: Source,
    choice: Choice,
    found: Duplicates,
    counts: NDArray[np.int64],
    params: DataParams,
    sha256: str,
) -> ImageCard:
    """The content of data.json. Mean and standard deviation are per channel of the training images, in [0, 1].

    ``counts`` (channels, 256) says how often each value occurs in the training images.
    """
    values = np.arange(256) / 255
    means = [float(np.average(values, weights=count)) for count in counts]
    deviations = [
        float(np.sqrt(np.average((values - mean) ** 2, weights=count)))
        for mean, count in zip(means, counts, strict=True)
    ]
    card = ImageCard(
        name=params.name,
        classes=list(source.classes),
        image_shape=source.splits["train"].shape,
        counts={name: len(choice[name][1]) for name in SPLITS},
        mean=means,
        std=[deviation or 1.0 for deviation in deviations],  # a constant channel is not scaled
        mirror=params.name not in _NOT_MIRRORED if params.mirror == "auto" else params.mirror,
        sha256=sha256,
        duplicates=found,
        left_out=dict(source.left_out.most_common()),
        first_frames=source.first_frames,
    )
    if source.scale is None:
        return card
    scale = (source.scale.low, source.scale.high)
    return card.model_copy(update={"pixel_scale": scale, "pixel_scale_from": source.scale_from})


def _write(folder: Path, staged: Mapping[str, Staged], choice: Choice) -> NDArray[np.int64]:
    """Writes the arrays of all splits. Returns how often each value occurs in each channel of the training images."""
    counts = np.zeros(0, np.int64)
    for name in SPLITS:
        origin, indices = choice[name]
        part = staged[origin]
        np.save(folder / f"{name}_labels.npy", part.rows.labels[indices])
        with Written(folder / f"{name}_images.npy", part.shape, len(indices)) as file:
            for images in part.read(indices):
                file.add(images, counted=name == "train")
        if name == "train":
            counts = file.counts
    return counts


def _key(source: Source, params: DataParams) -> str:
    """The hash of all that the decoded pictures depend on, so that an interrupted stage goes on with the same ones."""
    rows = []
    for name, own in source.splits.items():
        files = []
        if isinstance(own, FileRows):
            files = [
                (str(path), *_state(path.archive if isinstance(path, Member) else path)) for path in own.paths
            ]
        rows.append((name, own.shape, len(own.labels), files))
    code = sha256_of(*code_of("prepare", "images"))
    root = Path(params.root).expanduser()
    return key_of(
        rows, params.name, params.root, _state(root) if root.exists() else (), source.scale, code,
        packages_of("prepare", "images"),
    )  # fmt: skip


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
