"""The schema of params.yaml for sequences, and the metrics of their two kinds: forecasts of series, and text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from models.sequences.spaces import search_space
from stages import params as shared
from stages import search_params as searching
from stages.evaluation import Metric
from stages.section import Count, Fraction, Natural, NotNegative, Positive, Section

PACKAGES: Sequence[str] = ()  # beyond requirements.lock

MASE = Metric(name="mase", case="window", higher_is_better=False, outcomes="numbers")
BITS = Metric(name="bits_per_character", case="chunk", higher_is_better=False, outcomes="numbers")
METRICS: Mapping[str, Metric] = {"traffic": MASE, "csv": MASE, "text": BITS}
TEXT = "text"

Operation = Literal["none", "tanh", "relu", "sigmoid", "identity"]
Column = Annotated[str, Field(min_length=1)]

_OF_SERIES = (
    *("time", "time_format", "zone", "series", "targets", "covariates"),
    *("lookback", "horizon", "season", "stride", "longest_gap"),
)
_OF_TEXT = ("unit", "vocabulary", "chunk")


class DataParams(shared.DataParams, frozen=True):
    name: Literal["traffic", "csv", "text"]
    time: Column
    time_format: Column | None
    zone: str | None
    series: Column | None
    targets: Annotated[list[Column], Field(min_length=1, max_length=1000)]
    covariates: Annotated[list[Column], Field(max_length=1000)]
    lookback: Annotated[int, Field(ge=2, le=10_000)]
    horizon: Annotated[int, Field(ge=1, le=10_000)]
    season: Count | Literal["auto"]
    stride: Count | None
    longest_gap: Natural
    unit: Literal["characters", "words"]
    vocabulary: Annotated[int, Field(ge=2, le=100_000)]
    chunk: Annotated[int, Field(ge=2, le=10_000)]
    valid_fraction: Fraction
    test_fraction: Fraction

    def reads_folders(self) -> bool:
        return False

    def inactive(self) -> Collection[str]:
        # Nothing is drawn at random, so that the seed has no effect.
        if self.name == TEXT:
            return ("seed", *_OF_SERIES, *(("vocabulary",) if self.unit == "characters" else ()))
        return ("seed", *_OF_TEXT)

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str | None) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise PydanticCustomError(
                "zone", "Input should be null, or a time zone of the IANA database such as Europe/Berlin"
            )
        return zone

    def check(self) -> None:
        """Raises ValueError for settings that do not fit each other."""
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"data.valid_fraction and data.test_fraction are {self.valid_fraction} and {self.test_fraction}; their sum"
                " must be less than 1, so that rows are left to train on"
            )
        if self.name == TEXT:
            return
        roles: dict[str, str] = {}
        named = [("time", self.time), *([("series", self.series)] if self.series else [])]
        named += [("targets", name) for name in self.targets]
        named += [("covariates", name) for name in self.covariates]
        for role, name in named:
            if name in roles:
                again = "twice" if roles[name] == role else f"and data.{role}"
                raise ValueError(f"data.{roles[name]} names the column {name!r} {again}; name it once")
            roles[name] = role


class EarlyStoppingParams(searching.EarlyStoppingParams, frozen=True):
    watch: Literal["none", "eigenvalue"]  # these cells have no skip connections


class GrowthParams(Section, frozen=True):
    """How a search grows its cell while it trains (models/search/growth.py)."""

    mode: Literal["none", "grow-then-prune", "alternating"]
    trigger: Literal["epochs", "plateau"]
    every: Count
    patience: Count
    start_nodes: Count
    hidden_start: Count | None
    add_operations: list[Operation]
    budget: Count | None

    def inactive(self) -> Collection[str]:
        if self.mode == "none":
            return [name for name in type(self).model_fields if name != "mode"]
        return ("patience",) if self.trigger == "epochs" else ("every",)


class SearchParams(searching.SupernetSearchParams, frozen=True):
    space: Literal["two-input", "one-input"]
    nodes: Annotated[int, Field(ge=1, le=32)]
    operations: Annotated[list[Operation], Field(min_length=1)]
    hidden: Annotated[int, Field(ge=1, le=4096)]
    embedding: Annotated[int, Field(ge=1, le=4096)]
    windows: Annotated[int, Field(ge=4)] | None
    curvature_windows: Natural
    early_stopping: EarlyStoppingParams
    growth: GrowthParams

    def named_space(self) -> str:
        return search_space(self.space, self.nodes, self.all_operations()).name

    def all_operations(self) -> list[str]:
        """The operations at the end of the search: those at the start, then those that growth adds."""
        return [*self.operations, *(self.growth.add_operations if self.growth.mode != "none" else ())]

    def inactive(self) -> Collection[str]:
        return [*super().inactive(), *(f"growth.{key}" for key in self.growth.inactive())]

    def check(self, devices: int) -> None:
        super().check(devices)
        operations = self.all_operations()
        if doubled := [name for name in operations if operations.count(name) > 1]:
            raise ValueError(
                f"search.operations and search.growth.add_operations have {doubled[0]!r} more than once; name it once"
            )
        if set(operations) <= {"none"}:
            raise ValueError(
                "search.operations is ['none']; it should have another operation, because nothing passes through none"
            )
        growth = self.growth
        if growth.mode == "none":
            return
        if set(self.operations) <= {"none"}:
            raise ValueError(
                "search.operations is ['none']; a search that grows should start with another operation, because nothing"
                " passes through none"
            )
        for key, start, limit, end in (
            ("start_nodes", growth.start_nodes, "nodes", self.nodes),
            ("hidden_start", growth.hidden_start or self.hidden, "hidden", self.hidden),
        ):
            if start > end:
                raise ValueError(
                    f"search.growth.{key} is {start}; it should be at most search.{limit} ({end}), which the cell grows to"
                )
        if growth.mode == "alternating" and growth.budget is None:
            raise ValueError(
                "search.growth.budget is null, but search.growth.mode is alternating, which prunes to a budget; set it to the"
                " operations that may stay"
            )


class RetrainParams(shared.BatchedRetrainParams, frozen=True):
    hidden: Annotated[int, Field(ge=1, le=4096)]
    embedding: Annotated[int, Field(ge=1, le=4096)]
    windows: Annotated[int, Field(ge=2)] | None
    learning_rate: Positive
    learning_rate_end: NotNegative
    weight_decay: NotNegative
    gradient_clip: Positive
    baselines: bool


class ExportParams(shared.ExportParams, frozen=True):
    opset: Annotated[
        int, Field(ge=15, le=23)
    ]  # older ones cannot cut the number of cases out of a shape; see stages/opsets.py
    latency_repeats: Count

    def inactive(self) -> Collection[str]:
        return ("seed",)  # nothing is drawn


class Params(shared.Params, frozen=True):
    """All of params.yaml, for sequences."""

    data: DataParams
    search: SearchParams
    retrain: RetrainParams
    export: ExportParams

    @model_validator(mode="after")
    def _across_keys(self) -> Params:
        self.data.check()
        if self.train.devices > 1:
            raise ValueError(
                f"train.devices is {self.train.devices}; it should be 1, because sequences are trained on one device"
            )
        if self.train.precision == "bfloat16":
            raise ValueError(
                "train.precision is bfloat16; it should be auto or float32, because errors of rounding add up along a sequence"
            )
        if self.latency.known():
            raise ValueError(
                "latency: networks for sequences have no latency in the search; set latency.budget_ms and"
                " latency.measurements to null, latency.weight to auto, and latency.always to false"
                " (registry.max_latency_ms limits the latency of what is registered)"
            )
        return self


def metric(params: shared.Params) -> Metric:
    """The metric of the kind of data that the settings name."""
    return METRICS[params.data.name]
