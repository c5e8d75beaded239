"""Reads WebDataset shards: tar files in which the members with one key form a sample, such as 0001.jpg and 0001.cls.

Shards are indexed once, and pictures are then read where they lie in the tar file. So they are decoded on all cores and
after an interruption like pictures in files, which a stream of samples would not allow.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.errors import UserError, of_system
from stages.images.prepare.folders import Listing, split_of
from stages.images.prepare.pictures import SUFFIXES, Member, Place

_LABEL = ".cls"
_CLASSES = "classes.txt"  # beside the shards: the name of a class in each line, in the order of the labels
_LONGEST_LABEL = 1000  # bytes
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

Sample = dict[str, Member]  # suffix -> member


def listing(root: Path) -> Listing:
    """The pictures in the shards of a folder. Raises UserError when a sample has no label or the shards are unclear."""
    if not root.is_dir():
        raise UserError(
            f"data.root is {root}, which is not a folder; with data.name: webdataset it must hold .tar files"
        )
    left_out: Counter[str] = Counter()
    splits: dict[str, list[tuple[Place, str]]] = {}
    names: list[str] | None = None
    for path in sorted(root.iterdir()):
        if path.name == _CLASSES:
            names = _lines(path)
        elif path.suffix == ".tar" and path.is_file():
            samples = _labelled(path, left_out)
            splits.setdefault(split_of(path.stem) or "", []).extend(samples)
        elif path.name.endswith(_COMPRESSED):
            raise UserError(
                f"{path} is compressed, so its pictures cannot be found by their place; decompress it"
            )
        else:
            left_out[path.suffix.lower() or "folders or without a suffix"] += 1
    if "" in splits:
        if len(splits) > 1:
            raise UserError(
                f"{root}: some shards are named after a split and some are not; name all of them like train-000.tar,"
                " val-000.tar and test-000.tar, or none"
            )
        splits = {"train": splits[""]}
    if not splits.get("train"):
        raise UserError(
            f"{root} has no .tar file with training pictures; expected train-000000.tar or the like"
        )
    classes = _classes(root, names, splits)
    numbers = {name: number for number, name in enumerate(classes)}
    files = {
        split: [(place, int(label) if names else numbers[label]) for place, label in samples]
        for split, samples in splits.items()
        if samples
    }
    return Listing(classes, files, left_out)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read ({error}); save it as UTF-8 text") from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def _labelled(path: Path, left_out: Counter[str]) -> list[tuple[Place, str]]:
    """The pictures of a shard with their labels as text, in order; other members are counted."""
    found: list[tuple[Place, str]] = []
    missing: list[str] = []
    for key, sample in _samples(path, left_out).items():
        pictures = [suffix for suffix in sample if suffix in SUFFIXES]
        for suffix in sample:
            if suffix != _LABEL and suffix not in pictures[:1]:
                left_out[f"{suffix} in shards"] += 1
        if not pictures:
            if _LABEL in sample:
                left_out["labels without a picture"] += 1
            continue
        if _LABEL not in sample:
            missing.append(key)
            continue
        label = sample[_LABEL]
        if label.size > _LONGEST_LABEL:
            raise UserError(f"{label}: the label has {label.size} bytes; write the number or name of a class")
        found.append((sample[pictures[0]], label.read().decode("utf-8", "replace").strip()))
    if missing:
        raise UserError(
            f"{path}: {len(missing)} pictures have no label (first: {missing[0]}); add {missing[0]}{_LABEL} with the"
            " number of the class"
        )
    return found


def _samples(path: Path, left_out: Counter[str]) -> dict[str, Sample]:
    """The members of a shard by key and suffix. A key is the name up to the first dot of its last part."""
    samples: dict[str, Sample] = {}
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                folder, name = os.path.split(member.name)
                stem, dot, suffix = name.partition(".")
                if member.isdir():
                    continue
                if not member.isreg() or member.sparse is not None or not stem or not dot:  # pyright: ignore[reportAttributeAccessIssue]
                    left_out["links, hidden or unnamed members of shards"] += 1
                    continue
                sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
                place = Member(path, member.name, member.offset_data, member.size)
                if sample.setdefault(f".{suffix.lower()}", place) is not place:
                    raise UserError(f"{path}: the member {member.name} occurs twice; keep one")
    except (tarfile.TarError, OSError, EOFError) as error:
        known = of_system(error, path) if isinstance(error, OSError) else None
        raise known or UserError(f"{path} cannot be read as a tar file ({error}); write it again") from None
    return samples


def _classes(
    root: Path, names: list[str] | None, splits: Mapping[str, Sequence[tuple[Place, str]]]
) -> list[str]:
    """The names of the classes: from classes.txt, else the labels themselves."""
    labels = {split: {label for _, label in samples} for split, samples in splits.items()}
    if names:
        wrong = [
            label
            for own in labels.values()
            for label in own
            if not label.isdecimal() or len(label) > 9 or int(label) >= len(names)
        ]
        if wrong:
            raise UserError(
                f"{root}: the label {wrong[0]!r} is not a line of {_CLASSES}, which has {len(names)} classes from 0;"
                " correct it"
            )
        return names
    for split, own in labels.items():
        if unknown := sorted(own - labels["train"]):
            raise UserError(
                f"{root}: class {unknown[0]!r} of {split} is not among the training classes; remove its samples"
            )
    if "" in labels["train"]:
        raise UserError(f"{root}: a label is empty; write the number or name of a class into every {_LABEL}")
    if all(label.isdecimal() for label in labels["train"]):
        return sorted(labels["train"], key=int)
    return sorted(labels["train"])
