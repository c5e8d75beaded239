"""Writes known.json, which the server reads: pictures to try, from which confidence on an answer is sure, how training images look.

Sure:    the lowest confidence from which at least 4 of 5 validation images are answered rightly. The share of right
         answers at a confidence is fitted by isotonic regression (Zadrozny and Elkan 2002), which only assumes that it
         rises with the confidence. The weights were chosen by the same images, so the threshold is slightly optimistic.
Looks:   brightness (mean) and contrast (standard deviation) of the training images, each from the quantile 0.001 to
         0.999. A picture outside of these ranges is unlike what the network has learned from.
Pictures: test images, one of a class at first, as many as fit into 120 kB.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from stages.images.data import ImageCard, read_split
from stages.images.params import METRIC
from stages.images.testing.cases import Answer, TestSet, in_batches
from stages.records import Record

_RELIABLE = 0.8  # share of right answers from which on an answer is sure
_IMAGES = 5_000  # validation images that are answered at most, and training images that are looked at
_AT_ONCE = 64  # images, which bounds the memory
_OUTSIDE = 0.001  # share of the training images beyond either end of a range
_PICTURES, _LOSSLESS, _ROOM = 12, 12_000, 120_000  # how many; bytes of one PNG, and of all pictures together


class Picture(BaseModel):
    """A test image as a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_name: str
    media_type: str  # image/png, or image/webp where the PNG would be large
    content: str  # base64


class Known(Record):
    """known.json. Ranges are in levels of 0 to 255."""

    model_sha256: str  # plain SHA-256 of the file that this is about
    sure_from: float | None  # probability of the best class; None: the network is never sure
    brightness: tuple[float, float]
    contrast: tuple[float, float]
    pictures: list[Picture]


def write_known(path: Path, model: Path, answer: Answer, card: ImageCard, test: TestSet) -> None:
    """Writes known.json about the file ``model``, whose answers are ``answer``. Equal input gives equal bytes."""
    images, labels = map(thinned, read_split("val"))
    probabilities = in_batches(answer, images)
    brightness, contrast = looks(thinned(read_split("train")[0]))
    Known(
        model_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        sure_from=sure_from(probabilities.max(1), probabilities.argmax(1) == labels),
        brightness=_range(brightness),
        contrast=_range(contrast),
        pictures=pictures(card, test),
    ).write(path, METRIC)


def sure_from(confidence_N: NDArray[np.floating], right_N: NDArray[np.bool_]) -> float | None:
    """The lowest of these confidences from which on 4 of 5 answers are right; None where there is none."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    share_N = IsotonicRegression().fit_transform(confidence_N.astype(np.float64), right_N.astype(np.float64))
    enough = confidence_N[share_N >= _RELIABLE]
    return math.floor(1e4 * float(enough.min())) / 1e4 if len(enough) else None


def looks(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brightness and contrast (N,) of images (N, H, W, C): mean and standard deviation of all their values."""
    blocks = [
        images[start : start + _AT_ONCE].reshape(-1, math.prod(images.shape[1:]))
        for start in range(0, len(images), _AT_ONCE)
    ]
    brightness, contrast = (
        np.concatenate([measure(block, axis=1) for block in blocks]) for measure in (np.mean, np.std)
    )
    return brightness, contrast


def pictures(card: ImageCard, test: TestSet) -> list[Picture]:
    """The first test image of each class (of classes spread evenly where there are many), then the second, ..."""
    classes = np.unique(test.labels)
    classes = classes[np.unique(np.linspace(0, len(classes) - 1, _PICTURES).astype(int))]
    of_class = [np.flatnonzero(test.labels == label) for label in classes]
    turns = range(-(-_PICTURES // len(classes)))
    chosen = [int(rows[turn]) for turn in turns for rows in of_class if turn < len(rows)]
    found: list[Picture] = []
    room = _ROOM
    for index in chosen[:_PICTURES]:
        media_type, content = _encoded(test.images[index])
        if len(content) <= room:
            room -= len(content)
            name, text = card.classes[test.labels[index]], base64.b64encode(content).decode()
            found.append(Picture(class_name=name, media_type=media_type, content=text))
    return found


def thinned(rows: NDArray[Any]) -> NDArray[Any]:
    """At most 5,000 rows, spread evenly over all of them: a view, so that a large file is not read as a whole."""
    return rows[:: -(-len(rows) // _IMAGES)]


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, (_OUTSIDE, 1 - _OUTSIDE))
    return math.floor(10 * low) / 10, math.ceil(10 * high) / 10


def _encoded(pixels: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Media type and content of an image (H, W, C): PNG, or WebP where that would be large."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    if len(png.getvalue()) <= _LOSSLESS:
        return "image/png", png.getvalue()
    webp = io.BytesIO()
    image.save(webp, "WEBP", quality=85)
    return "image/webp", webp.getvalue()
