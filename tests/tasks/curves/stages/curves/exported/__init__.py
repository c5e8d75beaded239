"""Runs an exported curve on the test points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stages.curves.data import read_split
from stages.curves.testing import evaluation_of

from stages.evaluation import Evaluation


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def evaluate(exported: Path) -> Evaluation:
    return evaluation_of(
        answers(exported, len(read_split("test"))), size_bytes=float(exported.stat().st_size)
    )


def answers(exported: Path, cases: int) -> NDArray[np.float32]:
    return np.asarray(_session(exported).run(["y"], {"x": read_split("test")[:cases, 0].copy()})[0])


def one_call(exported: Path) -> Callable[[], object]:
    session, x = _session(exported), read_split("test")[:1, 0].copy()
    return lambda: session.run(["y"], {"x": x})


def example() -> Mapping[str, NDArray[Any]]:
    return {"x": read_split("test")[:2, 0].copy()}


def measures(evaluation: Evaluation) -> Mapping[str, float]:
    return {"largest_error": float(evaluation.per_case.max())}


def version_tags() -> Mapping[str, str]:
    return {}
