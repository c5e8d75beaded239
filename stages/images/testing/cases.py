"""The test images, and one way to evaluate answers to them, whether torch or ONNX Runtime gives them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.images.data import read_card, read_split
from stages.plumbing.files import DATA, sha256_of

_BATCH = 256  # images per call

# Images (N, H, W, C) -> probabilities (N, classes).
Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class TestSet:
    """The images on which every network is tested."""

    images: NDArray[np.uint8]  # (N, height, width, channels), memory-mapped
    labels: NDArray[np.int64]  # (N,)
    sha256: str  # of images, labels and class names; evaluations with the same hash can be compared

    def __len__(self) -> int:
        return len(self.labels)


def read_test_set() -> TestSet:
    """The test split that prepare has written. Raises UserError when a file is missing or damaged."""
    images, labels = read_split("test")
    files = [DATA / "test_images.npy", DATA / "test_labels.npy"]
    identity = f"{sha256_of(*files)} {json.dumps(read_card().classes)}"
    return TestSet(images, labels, hashlib.sha256(identity.encode()).hexdigest())


def in_batches(answer: Answer, images: NDArray[np.uint8], batch_size: int = _BATCH) -> NDArray[np.float32]:
    """Probabilities (N, classes) of images (N, height, width, channels)."""
    return np.concatenate([answer(images[n : n + batch_size]) for n in range(0, len(images), batch_size)])


def evaluation_of(probabilities: NDArray[np.float32], test: TestSet, **costs: float) -> Evaluation:
    """Evaluates the answers: right or wrong for each image, with the predicted class and its confidence."""
    predicted = probabilities.argmax(axis=1)
    right = predicted == test.labels
    return Evaluation(
        score=float(right.mean()),
        per_case=right.astype(np.float64),
        cases_sha256=test.sha256,
        costs=costs,
        details={
            "labels": np.asarray(test.labels, np.int64),
            "predicted": predicted.astype(np.int64),
            "confidence": probabilities.max(axis=1).astype(np.float32),
        },
    )
