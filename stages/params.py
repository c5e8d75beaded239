"""The sections of params.yaml that all tasks share; the schema of a task (stages/NAME/params.py) extends them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.evaluation import Metric
from stages.search_params import SearchParams
from stages.section import (
    AnyPath,
    Count,
    Fraction,
    Natural,
    NotNegative,
    PathForDvc,
    Positive,
    Section,
    Seed,
    Share,
)


class DataParams(Section, frozen=True):
    name: str
    root: PathForDvc
    seed: Seed

    def reads_folders(self) -> bool:
        """Whether prepare reads folders below ``root``, so that DVC has to notice changes in all of them."""
        return True


class TrainParams(Section, frozen=True):
    devices: Count
    precision: Literal["auto", "float32", "bfloat16"]


class LatencyParams(Section, frozen=True):
    """How long networks may take, what their latency is measured with, and how the search heeds it."""

    budget_ms: Positive | None
    tolerance: Share
    weight: NotNegative | Literal["auto"]
    mode: Literal["straight-through", "score-function", "soft"]
    draws: Count
    always: bool
    measurements: AnyPath | None
    predictors: list[AnyPath]
    samples: Annotated[int, Field(ge=20)]
    held_out: Annotated[int, Field(ge=5)]
    repeated: Natural
    rounds: Annotated[int, Field(ge=1, le=10)]
    repeats: Count
    warmup: Natural
    threads: Count
    batch_size: Count
    precision: Literal["float32"]
    seed: Seed

    def in_search(self) -> bool:
        """Whether the search heeds latency."""
        return self.budget_ms is not None or self.weight not in ("auto", 0)

    def known(self) -> bool:
        """Whether the stage measure has anything to do."""
        return self.always or self.in_search() or self.measurements is not None

    def inactive(self) -> Collection[str]:
        searched = ("mode", "draws")
        sampled = ("samples", "repeated", "rounds", "repeats", "warmup", "threads")
        always = ("budget_ms", "weight", "always", "measurements")
        if not self.known():
            return [name for name in type(self).model_fields if name not in always]
        return [
            *(() if self.in_search() else searched),
            *(() if self.budget_ms else ("tolerance",)),
            *(sampled if self.measurements else ()),
        ]

    def of_search(self) -> dict[str, Any]:
        """The settings that a search depends on, besides the predictor."""
        return {name: getattr(self, name) for name in ("budget_ms", "weight", "mode", "draws")}

    def of_table(self) -> dict[str, Any]:
        """The active settings that measurements and predictor depend on."""
        without = {*self.of_search(), "tolerance", "always"}
        return {name: value for name, value in self.active().items() if name not in without}


class DiscretizeParams(Section, frozen=True):
    epoch: Literal["last", "best"]


class RetrainParams(Section, frozen=True):
    seed: Seed
    epochs: Count

    def check(self, devices: int) -> None:
        """Raises ValueError for settings that do not fit the number of devices."""


class BatchedRetrainParams(RetrainParams, frozen=True):
    """A training on batches of cases."""

    batch_size: Annotated[int, Field(ge=2)]

    def check(self, devices: int) -> None:
        if self.batch_size % devices:
            raise ValueError(
                f"retrain.batch_size is {self.batch_size}; it should be a multiple of train.devices"
                f" ({devices}), because each device gets an equal part of every batch"
            )


class ExportParams(Section, frozen=True):
    seed: Seed


class RegistryParams(Section, frozen=True):
    name: Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[^/:'\"]+$")]
    promote: Literal["auto", "ask"]
    max_test_uses: Count | None
    min_gain: NotNegative
    significance: Fraction | None
    max_difference: Positive
    max_latency_ms: Positive | None
    max_size_mb: Positive | None
    max_int8_drop: Share

    def judged_by(self, metric: Metric) -> Metric:
        """The form of the task's metric that the gate compares: the task's own, unless its settings offer a choice."""
        return metric


class ReportParams(Section, frozen=True):
    examples: Natural


class ShareParams(Section, frozen=True):
    """What a flow sends to others when it has completed."""

    push: bool
    git_remote: Annotated[str, Field(min_length=1, pattern=r"^[^\s-][^\s]*$")] | None

    @model_validator(mode="after")
    def _asked_for(self) -> ShareParams:
        if self.git_remote is not None and not self.push:
            raise ValueError(
                f"share.git_remote is {self.git_remote!r}, but share.push is false; set share.push to true, or"
                " share.git_remote to null"
            )
        return self


class AlertsParams(Section, frozen=True):
    """Whom a flow tells when it needs a person."""

    block: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] | None
    webhook: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None
    on: list[Literal["bad-input", "failed", "promoted", "waits", "refused"]]


NOT_OF_RESULTS = ("serve", "share", "alerts")  # sections that no result depends on


class Params(Section, frozen=True):
    """All of params.yaml."""

    task: str
    data: DataParams
    train: TrainParams
    latency: LatencyParams
    search: SearchParams
    discretize: DiscretizeParams
    retrain: RetrainParams
    export: ExportParams
    registry: RegistryParams
    report: ReportParams
    serve: dict[str, Any] | None = None  # the server's settings, which the server validates
    # With defaults, because files from before there were these sections lead to the same results.
    share: ShareParams = ShareParams(push=False, git_remote=None)
    alerts: AlertsParams = AlertsParams(block=None, webhook=None, on=[])

    def of_results(self) -> dict[str, Any]:
        """The sections that results depend on, as params.yaml has them."""
        return self.model_dump(mode="json", exclude=set(NOT_OF_RESULTS))

    def section(self, name: str) -> Section:
        """The section of this name."""
        section = getattr(self, name)
        assert isinstance(section, Section), name
        return section

    def active_keys(self) -> set[str]:
        """The dotted keys of all active settings."""
        found: set[str] = set()
        for name in type(self).model_fields:
            if isinstance(section := getattr(self, name), Section):
                found |= set(_keys(section.active(), f"{name}."))
        return found

    @model_validator(mode="after")
    def _across_keys_of_all_tasks(self) -> Params:
        self.search.check(self.train.devices)
        self.retrain.check(self.train.devices)
        if self.latency.samples < 2 * self.latency.held_out:
            raise ValueError(
                f"latency.samples is {self.latency.samples}; it should be at least twice latency.held_out"
                f" ({self.latency.held_out}), because the others are what the predictor is fitted to"
            )
        return self


def _keys(content: dict[str, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for name, value in content.items():
        found += _keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found
