"""What registering asks of a task, of params.yaml and of the other stages' records: to be replaced by stages/tasks.py
and stages/records.py, which will hold the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from stages.evaluation import Evaluation, Metric
from stages.images import classification
from stages.params import Params
from stages.plumbing.files import DATA, EXPORT, SEARCH, read_json

if TYPE_CHECKING:
    from stages.registry.card import TaskCard

EVALUATION = EXPORT / "evaluation.safetensors"


class Task(Protocol):
    """What registering asks of a task."""

    metric: Metric
    exported: str  # the exported file's name in artifacts/export

    def evaluate(self, exported: Path, data: Path) -> Evaluation:
        """Runs the exported file on the test cases."""
        ...

    def one_call(self, exported: Path, data: Path) -> Callable[[], object]:
        """A call with one test case, whose time is the latency."""
        ...

    def example(self, data: Path) -> Mapping[str, NDArray]:
        """Input name -> array of a few test cases; empty where the export is not ONNX."""
        ...

    def measures(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Further numbers of a version, for registry.json and its tags."""
        ...

    def version_tags(self, data: Path) -> Mapping[str, str]:
        """Further tags of a version."""
        ...

    def card(self, evaluation: Evaluation, params: Params) -> TaskCard:
        """The parts of the model card that only the task can write."""
        ...


class Images:
    """The task of today's params.yaml."""

    metric = classification.ACCURACY
    exported = "model.onnx"
    evaluate = staticmethod(classification.evaluate)
    one_call = staticmethod(classification.one_call)
    example = staticmethod(classification.example)

    def measures(self, evaluation: Evaluation) -> dict[str, float]:
        return {"calibration_error": classification.calibration(evaluation).error}

    def version_tags(self, data: Path) -> dict[str, str]:
        return {"classes": json.dumps(read_json(data / "data.json")["classes"])}

    def card(self, evaluation: Evaluation, params: Params) -> TaskCard:
        from stages.images.card import card  # knows genotypes, which need torch

        return card(evaluation, params)


def task_of(params: Params) -> Task:
    """The task that params.yaml names."""
    return Images()


def exported_evaluation(task: Task) -> Evaluation:
    """What export measured."""
    return Evaluation.load(EVALUATION) if EVALUATION.exists() else task.evaluate(EXPORT / task.exported, DATA)


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ExportedInt8(_Record):
    """The section int8 of export.json."""

    file: str
    sha256: str


class ExportRecord(_Record):
    """export.json."""

    model_sha256: str
    largest_difference: float
    disagreements: int
    test_images: int
    params: int
    macs: int
    latency_ms: dict[str, float]
    int8: ExportedInt8 | None = None


class DataRecord(_Record):
    """data.json."""

    name: str
    sha256: str
    counts: dict[str, int]


def read_export() -> ExportRecord:
    return ExportRecord.model_validate(read_json(EXPORT / "export.json"))


def read_data_record() -> DataRecord:
    return DataRecord.model_validate(read_json(DATA / "data.json"))


def data_for_tracking() -> dict[str, Any]:
    """data.json as StageRun.dataset takes it."""
    return read_json(DATA / "data.json")


def discretization_gap() -> float:
    """Of summary.json."""
    return read_json(SEARCH / "summary.json")["discretization_gap"]
