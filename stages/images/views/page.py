"""The report's section about the test images: confusions, and examples of right and wrong answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from stages.evaluation import Evaluation
from stages.images.data import read_card, read_split
from stages.images.params import BALANCED
from stages.images.testing.classification import (
    accuracy_by_class,
    calibration,
    confusion,
    never_recognized,
)
from stages.images.views.reliability import reliability
from stages.intervals import in_words
from stages.page import environment
from stages.pictures import svg
from stages.plumbing.files import RETRAIN

_THUMBNAIL = 128  # pixels of the longest side of an example
_CLASSES = 25  # with more classes, the confusion matrix is a picture
_CONFUSIONS = 10  # how many pairs of classes are listed


def test_section(evaluation: Evaluation, count: int) -> Markup:
    """The section as HTML, with up to ``count`` examples each of right and wrong answers."""
    card, (images, _) = read_card(), read_split("test")
    details, classes = evaluation.details, card.classes
    labels, predicted, confidence = details["labels"], details["predicted"], details["confidence"]
    counts = confusion(evaluation, len(classes))
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    right = alternating_classes(np.flatnonzero(predicted == labels), labels)

    def example(index: int) -> dict[str, Any]:
        return {
            "picture": png(images[index]),
            "is": classes[labels[index]],
            "answer": classes[predicted[index]],
            "sure": confidence[index],
        }

    content = {
        "images": len(labels),
        "errors": len(wrong),
        "classes": classes,
        "counts": counts.tolist() if len(classes) <= _CLASSES else None,
        "picture": None if len(classes) <= _CLASSES else encoded((RETRAIN / "confusion.png").read_bytes()),
        "confusions": confusions(counts, classes),
        "wrong": [example(index) for index in wrong[:count].tolist()],
        "right": [example(index) for index in right[:count].tolist()],
        "small": max(card.image_shape[:2]) < _THUMBNAIL,
        "by_class": by_class(evaluation, classes),
        "interval": in_words(evaluation.score, len(labels)),
        "calibration": calibration(evaluation),
        "reliability": Markup(svg(reliability, calibration(evaluation))),
        "notice": never_recognized(evaluation, classes),
        "balanced": f"{BALANCED.words} {BALANCED.text(BALANCED.score(evaluation))}",
    }
    return Markup(environment(__file__).get_template("test.html").render(content))


def by_class(evaluation: Evaluation, classes: Sequence[str]) -> list[tuple[str, float | None, str]]:
    """Name, accuracy and its 95% interval for each class; no interval for a class without images."""
    images = np.bincount(evaluation.details["labels"], minlength=len(classes)).tolist()
    shares = accuracy_by_class(evaluation, classes)
    return [
        (name, share, "" if share is None else in_words(share, count))
        for (name, share), count in zip(shares.items(), images, strict=True)
    ]


def confusions(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often."""
    off_diagonal = np.where(np.eye(len(classes), dtype=bool), 0, counts)
    pairs = np.argsort(-off_diagonal, axis=None, kind="stable")[:_CONFUSIONS]
    return [
        {"actual": classes[pair // len(classes)], "predicted": classes[pair % len(classes)], "count": many}
        for pair in pairs.tolist()
        if (many := int(off_diagonal.flat[pair]))
    ]


def alternating_classes(indices: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices reordered so that the classes alternate: the first of every class, then the second, ..."""
    rank = np.zeros(len(indices), dtype=int)
    for label in np.unique(labels[indices]):
        of_class = labels[indices] == label
        rank[of_class] = np.arange(of_class.sum())
    return indices[np.lexsort((labels[indices], rank))]


def png(pixels: NDArray[np.uint8]) -> str:
    """An image (H, W, C) as a data URL, scaled down if the image is large."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return encoded(file.getvalue())


def encoded(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
