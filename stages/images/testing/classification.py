"""Measures of a classifier's answers besides the accuracy: accuracy by class, confusion, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation

_NAMED = 5  # classes that the notice about unrecognized classes names
_LETTERS = 40  # of a class name in it
_BINS = 15  # bins of confidence, the usual number for the expected calibration error


@dataclass(frozen=True)
class Calibration:
    """How much confidence and accuracy differ: the expected calibration error (Guo et al. 2017) and its bins."""

    error: float
    bins: tuple[tuple[float, float, int], ...]  # mean confidence, accuracy, images; empty bins are left out


def calibration(evaluation: Evaluation) -> Calibration:
    """Uses bins of equal width over the confidence. The error weights each bin by its number of images."""
    confidence, right = evaluation.details["confidence"].astype(np.float64), evaluation.per_case
    places = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    bins = [
        (float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (places == place for place in range(_BINS))
        if inside.any()
    ]
    error = sum(abs(sure - share) * count / len(right) for sure, share, count in bins)
    return Calibration(error, tuple(bins))


def confusion(evaluation: Evaluation, classes: int) -> NDArray[np.int64]:
    """Counts (actual, predicted)."""
    from sklearn.metrics import confusion_matrix  # takes a second, and most runs of register do not need it

    details = evaluation.details
    return confusion_matrix(details["labels"], details["predicted"], labels=range(classes))


def accuracy_by_class(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, float | None]:
    """The recognized share of each class's images; None for a class without images."""
    labels = evaluation.details["labels"]
    images = np.bincount(labels, minlength=len(classes))
    right = np.bincount(labels[evaluation.per_case > 0.5], minlength=len(classes))
    return {
        name: hit / count if count else None
        for name, hit, count in zip(classes, right.tolist(), images.tolist(), strict=True)
    }


def never_recognized(evaluation: Evaluation, classes: Sequence[str]) -> str | None:
    """A sentence about the classes that have test images of which none is recognized; None without such classes.

    It names the first of them with their numbers of test images.
    """
    shares = accuracy_by_class(evaluation, classes)
    images = np.bincount(evaluation.details["labels"], minlength=len(classes)).tolist()
    missed = [number for number, name in enumerate(classes) if shares[name] == 0]
    if not missed:
        return None

    def described(number: int) -> str:
        count = images[number]
        return f"{_short(classes[number])} ({count} test image{'s' if count != 1 else ''})"

    named = ", ".join(map(described, missed[:_NAMED]))
    more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
    verb = "is" if len(missed) == 1 else "are"
    return f"{len(missed)} of {len(classes)} classes {verb} never recognized: {named}{more}"


def _short(name: str) -> str:
    """A class name on one line and of bounded length."""
    line = " ".join(name.split())
    return line if len(line) <= _LETTERS else f"{line[: _LETTERS - 1]}\u2026"
