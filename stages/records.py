"""What the JSON artifacts hold, each defined once and read and written through its record.

Fields are named for any task; the files speak the task's words. In the file, ``score`` in a name stands as the metric's name
and ``cases`` as what the task calls its cases: ``test_score`` is ``test_accuracy`` in the metrics.json of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.errors import UserError
from stages.evaluation import Metric
from stages.plumbing.files import read_json, write_json


class Record(BaseModel):
    """One JSON artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def content(self, metric: Metric) -> dict[str, Any]:
        """The record as the file holds it; what is not set is left out."""
        return {
            _in_words(name, metric): value
            for name, value in self.model_dump(mode="json", exclude_unset=True).items()
        }

    def write(self, path: Path, metric: Metric) -> None:
        """Writes the file, atomically."""
        write_json(path, self.content(metric))

    @classmethod
    def read(cls, path: Path, metric: Metric) -> Self:
        """Reads the file. Raises UserError when it is absent or damaged."""
        return cls.of(read_json(path), metric, str(path))

    @classmethod
    def of(cls, content: Mapping[str, Any], metric: Metric, where: str) -> Self:
        """The record of a file's content. Raises UserError, which names ``where``, when it is none."""
        fields = {_in_words(name, metric): name for name in cls.model_fields}
        try:
            return cls.model_validate({fields.get(name, name): value for name, value in content.items()})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{where} is damaged ({key}: {first['msg']}); delete it and run `dvc repro`"
            ) from None


def _in_words(name: str, metric: Metric) -> str:
    words = {"score": metric.name, "cases": f"{metric.case}s"}
    return "_".join(words.get(part, part) for part in name.split("_"))


class DataCard(Record):
    """data.json: what is in artifacts/data; tasks add what their later stages need to know of it."""

    name: str
    counts: dict[str, int]  # cases per split: train, val, test
    sha256: str  # of the arrays

    def schema_of_a_case(self) -> dict[str, Any]:
        """What a case looks like, for the record of the data set in MLflow."""
        return {}

    def in_words(self) -> str:
        """What the cases are, for the line that prepare prints."""
        return "cases"


class SearchSummary(Record):
    """summary.json: what a search came to. Scores are on the validation cases, epochs are counted from 1."""

    supernet_score: float  # of the mix
    discretized_score: float  # of the mix with all but the chosen operations set to zero
    discretization_gap: float
    hessian_eigenvalue: float | None = None  # dominant, of the validation loss with respect to alpha
    hessian_residual: float | None = None
    epoch: int  # whose alpha is the result
    valid_score: float | None
    best_epoch: int
    best_valid_score: float | None

    def chosen_epoch(self, which: str) -> int:
        """The epoch that the architecture is taken from: "last", or "best" by validation."""
        return self.epoch if which == "last" else self.best_epoch

    def chosen_score(self, which: str) -> float | None:
        """The validation score of that epoch."""
        return self.valid_score if which == "last" else self.best_valid_score


class SearchAbout(Record):
    """The metadata of alphas.safetensors: how alpha is to be read."""

    space: str
    exclude_none: bool
    relaxation: str


class RetrainMetrics(Record):
    """metrics.json: what retraining came to."""

    test_score: float
    class_score: dict[str, float | None] | None = None  # by class or series; None where it has no test case
    valid_score: float
    best_epoch: int
    params: int


class Int8(Record):
    """The same network in 8 bits, and what that costs."""

    file: str
    sha256: str
    test_accuracy: float
    accuracy_drop: float
    agreement: float
    bytes: int
    size_ratio: float
    latency_ms: dict[str, float]
    speed_up: float
    speed_up_batch_1: float


class ExportRecord(Record):
    """export.json: what was exported, how near it is to torch, and what it costs."""

    file: str = "model.onnx"
    test_cases: int
    test_score: float
    largest_difference: float  # of an output from torch's, over all test cases
    agreement: float | None = None  # the share of test cases answered alike
    disagreements: int = 0  # test cases answered otherwise than by torch, ties aside
    latency_ms: dict[str, float]
    threads: int
    size_bytes: int
    params: int
    macs: int | None = None
    opset: int | None = None
    model_sha256: str
    int8: Int8 | None = None


def with_scores(rows: Sequence[Mapping[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    """A history as its file holds it: the metric's columns also under names that the plots of every task can use."""
    return [
        {**row, **{f"{split}_score": row[f"{split}_{metric.name}"] for split in ("train", "valid")}}
        for row in rows
    ]
