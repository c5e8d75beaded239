"""How an exported classifier does on the test images, through ONNX Runtime; its calibration and confusion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import UserError
from stages.evaluation import Evaluation, Metric
from stages.plumbing.files import read_json, sha256_of

if TYPE_CHECKING:
    import onnxruntime

ACCURACY = Metric("accuracy", case="image", higher_is_better=True, outcomes="right or wrong")
_BATCH = 256  # images at once
_EXAMPLES = 2  # images that show what the network takes
_BINS = 15  # of confidence, as is usual for the expected calibration error


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy: the expected calibration error (Guo et al. 2017) and its bins."""

    error: float
    bins: tuple[tuple[float, float, int], ...]  # mean confidence, accuracy, images; empty bins are left out


def evaluate(exported: Path, data: Path) -> Evaluation:
    """Runs a network on all test images. Details: predicted and labels int64 (N,), confidence float32 (N,).

    Raises UserError when the test images are missing or damaged.
    """
    images, labels, cases = _test_images(data)
    probabilities = answers(exported, images)
    predicted = probabilities.argmax(axis=1)
    right = (predicted == labels).astype(np.float64)
    return Evaluation(
        score=float(right.mean()),
        per_case=right,
        cases_sha256=cases,
        costs={"size_bytes": exported.stat().st_size},
        details={
            "predicted": predicted.astype(np.int64),
            "confidence": probabilities.max(axis=1),
            "labels": np.asarray(labels, dtype=np.int64),
        },
    )


def answers(exported: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, classes) of images (N, height, width, channels)."""
    session = _session(exported)

    def run(batch: NDArray[np.uint8]) -> NDArray[Any]:
        return np.asarray(session.run(["probabilities"], {"image": np.ascontiguousarray(batch)})[0])

    return np.concatenate([run(images[n : n + _BATCH]) for n in range(0, len(images), _BATCH)])


def example(data: Path) -> dict[str, NDArray]:
    """The network's input: the first test images."""
    return {"image": np.ascontiguousarray(_test_images(data)[0][:_EXAMPLES])}


def one_call(exported: Path, data: Path) -> Callable[[], object]:
    """A call of the network with one image, for measuring how long it takes."""
    session, inputs = _session(exported), {"image": example(data)["image"][:1]}
    return lambda: session.run(None, inputs)


def calibration(evaluation: Evaluation) -> Calibration:
    """Bins of equal width over the confidence; the error is weighted by the images in them."""
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
    from sklearn.metrics import confusion_matrix  # takes a second, which most calls of the stage do without

    details = evaluation.details
    return confusion_matrix(details["labels"], details["predicted"], labels=range(classes))


def _test_images(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Images (N, height, width, channels), labels (N,), and the hash of both and of the classes' names."""
    files = [data / "test_images.npy", data / "test_labels.npy"]
    try:
        images, labels = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{data} is damaged ({error}); delete it and run `dvc repro`") from None
    classes = read_json(data / "data.json")["classes"]
    identity = f"{sha256_of(*files)} {json.dumps(classes)}"
    return images, labels, hashlib.sha256(identity.encode()).hexdigest()


def _session(exported: Path) -> onnxruntime.InferenceSession:
    import onnxruntime  # most calls of the stage run nothing, and should be quick

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an error is raised, and reported in one line
    return onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
