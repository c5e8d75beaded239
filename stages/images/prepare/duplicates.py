"""Finds pictures that occur more than once, by hashes of their decoded pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.images.data import Duplicates
from stages.images.prepare.rows import Digests, Labels, as_kinds

_KEPT_FIRST = ("test", "val", "train")  # of two equal pictures in two splits, that of the earlier one is kept


@dataclass(frozen=True)
class Pictures:
    """Labels and hashes of all pictures of one split."""

    labels: Labels
    digests: Digests


def find(splits: Mapping[str, Pictures], classes: Sequence[str]) -> Duplicates:
    """Counts the pictures that occur more than once."""
    groups, split, labels, _ = _grouped(splits)
    sizes = np.bincount(groups)
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    return Duplicates(
        copies=int(len(groups) - len(sizes)),
        test_in_train=_shared(groups, split, "test", "train"),
        test_in_val=_shared(groups, split, "test", "val"),
        val_in_train=_shared(groups, split, "val", "train"),
        two_labels=int((np.bincount(pairs[0]) > 1).sum()),
        copied_classes=_copied(groups, labels, classes),
    )


def kept(splits: Mapping[str, Pictures]) -> dict[str, NDArray[np.bool_]]:
    """Which pictures remain when copies are dropped: none of those with two labels, and one of every other kind.

    Test and validation pictures are kept before training pictures, so that a picture that is in both leaves the
    training split.
    """
    groups, split, labels, rows = _grouped(splits)
    order = np.lexsort([rows, split, groups])  # within a group, the picture to keep comes first
    first = np.ones(len(groups), bool)
    first[order[1:]] = groups[order[1:]] != groups[order[:-1]]
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    keep = first & (np.bincount(pairs[0])[groups] == 1)
    return {name: keep[split == _number(name)] for name in splits}


def _number(name: str) -> int:
    return _KEPT_FIRST.index(name)


def _grouped(
    splits: Mapping[str, Pictures],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each picture: the number of its kind, the number of its split, its label, and its row."""
    names = [name for name in _KEPT_FIRST if name in splits]
    digests = np.concatenate([splits[name].digests for name in names])
    _, groups = np.unique(as_kinds(digests), return_inverse=True)
    split = np.concatenate([np.full(len(splits[name].labels), _number(name)) for name in names])
    labels = np.concatenate([splits[name].labels for name in names])
    rows = np.concatenate([np.arange(len(splits[name].labels)) for name in names])
    return groups.astype(np.int64), split, labels, rows


def _shared(groups: NDArray[np.int64], split: NDArray[np.int64], one: str, other: str) -> int:
    """How many pictures of one split are also in the other."""
    return int(np.isin(groups[split == _number(one)], groups[split == _number(other)]).sum())


def _copied(
    groups: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs of classes that have the same set of pictures."""
    kinds: dict[bytes, str] = {}
    pairs: list[tuple[str, str]] = []
    for label, name in enumerate(classes):
        own = np.unique(groups[labels == label]).tobytes()
        if own and (twin := kinds.setdefault(own, name)) != name:
            pairs.append((twin, name))
    return pairs


def first_pair(splits: Mapping[str, Pictures]) -> list[tuple[str, int]]:
    """The split and the row of two equal pictures; empty when every picture is unique."""
    groups, split, _, rows = _grouped(splits)
    order = np.argsort(groups, kind="stable")
    equal = np.flatnonzero(groups[order[1:]] == groups[order[:-1]])
    if not len(equal):
        return []
    return [(_KEPT_FIRST[split[place]], int(rows[place])) for place in order[equal[0] : equal[0] + 2]]
