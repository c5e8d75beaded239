"""The contents of the JSON artifacts: one record per file, through which the file is written and read.

The fields have the same names for every task; the files use the task's words. In a file, the name of the
task's metric replaces ``score`` in a field's name, and the task's word for its cases replaces ``cases``: the field
``test_score`` is ``test_accuracy`` in the metrics.json of images. Fields with ``balanced_score`` are about the balanced
form of the metric. They are there where cases have classes, and in files since there is such a form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.errors import UserError
from stages.evaluation import Metric
from stages.plumbing.files import read_json, write_json

NUMBERS = (
    "numbers.json"  # beside the records of search, retrain and export: the few numbers that people compare
)
_DIGITS = 12  # of a balanced validation score


class Record(BaseModel):
    """One JSON artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def content(self, metric: Metric) -> dict[str, Any]:
        """The record as the file holds it, without the fields that are not set."""
        return {
            _in_words(name, metric): value
            for name, value in self.model_dump(mode="json", exclude_unset=True).items()
        }

    def write(self, path: Path, metric: Metric) -> None:
        """Writes the file, atomically."""
        write_json(path, self.content(metric))

    def numbers(self) -> dict[str, float | None]:
        """What people compare between runs: name -> number, or None where it is not known."""
        return {}

    def write_numbers(self, folder: Path, metric: Metric) -> None:
        """Writes numbers.json, which `dvc metrics diff` and `dvc exp show` show."""
        known = {
            _in_words(name, metric): value for name, value in self.numbers().items() if value is not None
        }
        write_json(folder / NUMBERS, known)

    @classmethod
    def read(cls, path: Path, metric: Metric) -> Self:
        """Reads the file. Raises UserError when the file is missing or damaged."""
        return cls.of(read_json(path), metric, str(path))

    @classmethod
    def of(cls, content: Mapping[str, Any], metric: Metric, where: str) -> Self:
        """The record in a file's content. Raises UserError, which names ``where``, when the content is invalid."""
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
    words = {"score": metric.own.name, "cases": f"{metric.case}s"}
    return "_".join(words.get(part, part) for part in name.split("_"))


class DataCard(Record):
    """data.json: describes artifacts/data. Tasks add the fields that their later stages need."""

    name: str
    counts: dict[str, int]  # cases per split: train, val, test
    sha256: str  # of the arrays

    def schema_of_a_case(self) -> dict[str, Any]:
        """What a case looks like, for MLflow's record of the data set."""
        return {}

    def in_words(self) -> str:
        """Describes the cases; prepare prints this description."""
        return "cases"

    def notices(self) -> list[str]:
        """What the user should know about the data; prepare prints one line for each."""
        return []


class SearchSummary(Record):
    """summary.json: the result of a search. Scores are measured on the validation cases. Epochs count from 1."""

    supernet_score: float  # of the mix
    discretized_score: float  # of the mix with all but the chosen operations set to zero
    discretization_gap: float
    hessian_eigenvalue: float | None = None  # dominant, of the validation loss with respect to alpha
    hessian_residual: float | None = None
    largest_weight: float | None = None  # of a row of the mix, the mean over its rows
    indecision: float | None = None  # the entropy of the mix as a share of that of a uniform mix
    notice: str | None = None  # what the user should know, a sentence without a full stop
    epoch: int  # the epoch whose alpha is the result
    valid_score: float | None
    valid_balanced_score: float | None = None
    best_epoch: int
    best_valid_score: float | None
    best_valid_balanced_score: float | None = None  # of the epoch with the best valid_score

    def numbers(self) -> dict[str, float | None]:
        return {
            "search_valid_score": self.valid_score,
            "search_valid_balanced_score": self.valid_balanced_score,
            "discretization_gap": self.discretization_gap,
        }

    def chosen_epoch(self, which: str) -> int:
        """The epoch that the architecture is taken from: the "last", or the "best" by validation score."""
        return self.epoch if which == "last" else self.best_epoch

    def chosen_score(self, which: str) -> float | None:
        """The validation score of that epoch."""
        return self.valid_score if which == "last" else self.best_valid_score

    def chosen_balanced_score(self, which: str) -> float | None:
        """The balanced validation score of that epoch."""
        return self.valid_balanced_score if which == "last" else self.best_valid_balanced_score


class SearchAbout(Record):
    """The metadata of alphas.safetensors, which tell how to read alpha."""

    space: str
    exclude_none: bool
    relaxation: str


class RetrainMetrics(Record):
    """metrics.json: the result of retraining."""

    test_score: float
    test_balanced_score: float | None = None
    class_score: dict[str, float | None] | None = None  # by class or series; None for one without test cases
    valid_score: float
    valid_balanced_score: float | None = None
    best_epoch: int
    params: int

    def numbers(self) -> dict[str, float | None]:
        return {
            "valid_score": self.valid_score,
            "test_score": self.test_score,
            "test_balanced_score": self.test_balanced_score,
            "params": self.params,
        }

    def tested(self, metric: Metric) -> list[tuple[Metric, float]]:
        """The forms of the metric and the test scores by them, as far as they are known."""
        scores = (self.test_score, self.test_balanced_score)
        pairs = zip(metric.forms, scores, strict=False)
        return [(form, score) for form, score in pairs if score is not None]


class Int8(Record):
    """The same network in 8 bits, and how its accuracy, size and speed change."""

    file: str
    sha256: str
    test_accuracy: float
    test_balanced_accuracy: float | None = None
    accuracy_drop: float
    agreement: float
    bytes: int
    size_ratio: float
    latency_ms: dict[str, float]
    speed_up: float
    speed_up_batch_1: float


class ExportRecord(Record):
    """export.json: the exported file, how close its answers are to torch's, and its size and latency."""

    file: str = "model.onnx"
    test_cases: int
    test_score: float
    test_balanced_score: float | None = None
    largest_difference: float  # between an output and torch's, over all test cases
    agreement: float | None = None  # the share of test cases with the same answer
    disagreements: int = 0  # test cases with another answer than torch's, ties aside
    latency_ms: dict[str, float]
    threads: int
    size_bytes: int
    params: int
    macs: int | None = None
    opset: int | None = None
    properties: dict[str, float] | None = (
        None  # what the task measures besides, such as the depth of a circuit
    )
    model_sha256: str
    int8: Int8 | None = None
    # git_commit, run_id, data_sha256: where the file comes from, which the file does not say itself
    origin: dict[str, str] | None = None

    def numbers(self) -> dict[str, float | None]:
        return {
            "latency_ms": self.latency_ms.get("onnxruntime_batch_1"),
            "macs": self.macs,
            "megabytes": self.size_bytes / 1e6,
            **(self.properties or {}),
        }


def balanced_score(row: Mapping[str, Any], metric: Metric) -> float | None:
    """The balanced validation score in a row of a history; None where cases have no classes.

    It was summed with rounding errors. Without its last digits, equally good epochs have equal scores.
    """
    value = None if metric.balanced is None else row[f"valid_{metric.balanced.name}"]
    return None if value is None else round(value, _DIGITS)


def with_scores(rows: Sequence[Mapping[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    """A history as its file holds it. The metric's columns are repeated under names that all tasks share."""
    return [
        {**row, **{f"{split}_score": row[f"{split}_{metric.name}"] for split in ("train", "valid")}}
        for row in rows
    ]
