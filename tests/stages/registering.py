"""Helpers that the tests of the registry share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tests.stages.conftest import TINY, write_params


def int8_of(sha256: str) -> dict:
    """The section int8 of an export.json about a file with this hash."""
    return {
        "file": "model.int8.onnx",
        "sha256": sha256,
        "test_accuracy": 0.9,
        "accuracy_drop": 0.0,
        "agreement": 1.0,
        "bytes": 1000,
        "size_ratio": 0.5,
        "latency_ms": {"batch_1": 1.0, "batch_64": 1.0},
        "speed_up": 1.0,
        "speed_up_batch_1": 1.0,
    }


RunStage = Callable[..., int]
GOOD, BAD = 64, 20  # pixels that a linear network sees: about 94% and 46% of the digits recognized


def settings(name: str, **changes: object) -> None:
    write_params(
        Path("params.yaml"),
        {**TINY, "registry.name": name, **{f"registry.{key}": value for key, value in changes.items()}},
    )


def registry() -> dict:
    return json.loads(Path("artifacts/registry.json").read_text())


def alias(store: str, name: str, alias: str) -> ModelVersion:
    return MlflowClient(tracking_uri=store).get_model_version_by_alias(name, alias)


def number(store: str, name: str, which: str = "champion") -> int:
    return int(alias(store, name, which).version)


def run_champion(run_stage: RunStage, *arguments: str) -> int:
    """`python -m stages.champion` in this process."""
    return run_stage("champion", *arguments, move="")
