"""Runs an exported file on the test images, with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.images.data import read_card, read_split
from stages.images.testing.cases import Answer, evaluation_of, in_batches, read_test_set
from stages.images.testing.classification import calibration

_EXAMPLES = 2  # images kept with a registered model as an input example


def evaluate(exported: Path) -> Evaluation:
    test = read_test_set()
    probabilities = in_batches(with_onnx(exported), test.images)
    return evaluation_of(probabilities, test, size_bytes=exported.stat().st_size)


def answers(exported: Path, cases: int) -> NDArray[np.float32]:
    return in_batches(with_onnx(exported), read_split("test")[0][:cases])


def one_call(exported: Path) -> Callable[[], object]:
    answer, image = with_onnx(exported), np.ascontiguousarray(read_split("test")[0][:1])
    return lambda: answer(image)


def example() -> Mapping[str, NDArray[Any]]:
    return {"image": np.ascontiguousarray(read_split("test")[0][:_EXAMPLES])}


def measures(evaluation: Evaluation) -> Mapping[str, float]:
    return {"calibration_error": calibration(evaluation).error}


def version_tags() -> Mapping[str, str]:
    import json

    return {"classes": json.dumps(read_card().classes)}


def with_onnx(path: Path, threads: int = 0) -> Answer:
    """A function that runs the file with ONNX Runtime on the CPU. With ``threads`` 0, ONNX Runtime chooses."""
    import onnxruntime  # here, because the import is slow and not every caller runs a file

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised anyway, and shown in one line
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(
        session.run(["probabilities"], {"image": np.ascontiguousarray(images)})[0]
    )
