"""What a network's file answers on the test images, through ONNX Runtime, measured when it is asked for."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import UserError
from stages.plumbing.files import DATA, read_json, sha256_of

if TYPE_CHECKING:
    import onnxruntime

_BATCH = 256  # images at once
_CALLS, _SECONDS = 50, 3.0  # latency: so many calls, or so long, whichever ends first
_BINS = 15  # of confidence, as is usual for the expected calibration error


@dataclass(frozen=True)
class TestSet:
    """The images every version is judged on."""

    images: NDArray[np.uint8]  # (N, height, width, channels), memory-mapped
    labels: NDArray[np.int64]  # (N,)
    classes: tuple[str, ...]
    sha256: str  # of images, labels and the classes' names: equal means comparable


@dataclass(frozen=True, eq=False)
class Scores:
    """How one network does on a test set."""

    probabilities: NDArray[np.float32]  # (N, classes)
    labels: NDArray[np.int64]  # (N,)
    size_bytes: int
    latency_ms: float  # median of one call with one image

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images were recognized (N,)."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def accuracy(self) -> float:
        """Share of the images recognized."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy: expected calibration error (Guo et al. 2017), and what it is made of."""

    error: float
    bins: tuple[
        tuple[float, float, int], ...
    ]  # mean confidence, accuracy, images; bins without images are left out


def read_test_set() -> TestSet:
    """The test split of the stage prepare. Raises UserError when it is absent or damaged."""
    files = [DATA / "test_images.npy", DATA / "test_labels.npy"]
    try:
        images, labels = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{DATA} is damaged ({error}); delete it and run `dvc repro`") from None
    classes = read_json(DATA / "data.json")["classes"]
    identity = f"{sha256_of(*files)} {json.dumps(classes)}"
    return TestSet(images, labels, tuple(classes), hashlib.sha256(identity.encode()).hexdigest())


def score(model: Path, test: TestSet) -> Scores:
    """Runs a network on all test images, and takes its time."""
    probabilities = answers(model, test.images)
    return Scores(probabilities, np.asarray(test.labels), model.stat().st_size, _latency(model, test.images))


def answers(model: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, classes) of images (N, height, width, channels)."""
    session = _session(model)

    def run(batch: NDArray[np.uint8]) -> NDArray[Any]:
        return np.asarray(session.run(["probabilities"], {"image": np.ascontiguousarray(batch)})[0])

    return np.concatenate([run(images[n : n + _BATCH]) for n in range(0, len(images), _BATCH)])


def calibration(scores: Scores) -> Calibration:
    """Bins of equal width over the confidence, the error weighted by the images in them."""
    confidence = scores.probabilities.max(axis=1).astype(np.float64)
    places = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    bins = [
        (float(confidence[inside].mean()), float(scores.right[inside].mean()), int(inside.sum()))
        for inside in (places == place for place in range(_BINS))
        if inside.any()
    ]
    total = len(scores.labels)
    return Calibration(sum(abs(sure - right) * count / total for sure, right, count in bins), tuple(bins))


def confusion(scores: Scores) -> NDArray[np.int64]:
    """Counts (actual, predicted)."""
    classes = scores.probabilities.shape[1]
    flat = scores.labels * classes + scores.probabilities.argmax(axis=1)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _session(model: Path) -> onnxruntime.InferenceSession:
    import onnxruntime  # most calls of the stage run nothing, and should be quick

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised and said in one line
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _latency(model: Path, images: NDArray[np.uint8]) -> float:
    """Median milliseconds of one call with one image."""
    session, one, times = _session(model), np.ascontiguousarray(images[:1]), []
    session.run(None, {"image": one})  # the first call warms up
    end = time.perf_counter() + _SECONDS
    while len(times) < _CALLS and time.perf_counter() < end:
        started = time.perf_counter()
        session.run(None, {"image": one})
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)
