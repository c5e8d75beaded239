"""The sections of params.yaml that all tasks share; the schema of a task (stages/NAME/params.py) extends them.

``Section.active`` leaves out the settings that have no effect under the other settings. Checkpoints, tracking and
sweeps see active settings only.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from stages.evaluation import Metric

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise PydanticCustomError("path", "Path should be a path; put a path of digits in quotes")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise PydanticCustomError("path", "Path should begin with / or with a user who exists") from None
    return value


def _in_full(path: str) -> str:
    if (meant := Path(path).expanduser()) != Path(path):
        wish = "Path should be written in full, {meant}, because DVC does not expand ~"
        raise PydanticCustomError("path", wish, {"meant": str(meant)})
    return path


AnyPath = Annotated[str, BeforeValidator(_path)]  # not empty
PathForDvc = Annotated[AnyPath, AfterValidator(_in_full)]  # that dvc.yaml names, too


class Section(BaseModel, frozen=True):
    """A section of params.yaml: no unknown keys, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def inactive(self) -> Collection[str]:
        """The keys (dotted, below this section) that have no effect under the section's other settings."""
        return ()

    def active(self) -> dict[str, Any]:
        """The section without its inactive keys and without subsections that have no active key."""
        content = self.model_dump(mode="json")
        for key in self.inactive():
            *path, name = key.split(".")
            node = content
            for part in path:
                node = node[part]
            node.pop(name)
        return {name: value for name, value in content.items() if value != {}}


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


class WeightsParams(Section, frozen=True):
    learning_rate: Positive
    learning_rate_end: NotNegative
    momentum: Share
    weight_decay: NotNegative
    gradient_clip: Positive


class AlphaParams(Section, frozen=True):
    learning_rate: Positive
    weight_decay: NotNegative
    warmup_epochs: Natural
    temperature_end: Positive


class MeanShiftParams(Section, frozen=True):
    samples: Count
    iterations: Count
    bandwidth: Positive | Literal["auto"]
    radius_start: NotNegative
    radius_end: NotNegative
    sign: Literal[1, -1]
    temperature: Positive
    probe_images: Count | None


class PerturbationParams(Section, frozen=True):
    radius_start: NotNegative
    radius_end: NotNegative
    steps: Count


class SingleLevelParams(Section, frozen=True):
    relaxation: Literal["softmax", "sigmoid"]


class EarlyStoppingParams(Section, frozen=True):
    watch: Literal["none", "eigenvalue", "skip_connections"]
    window: Count
    threshold: Positive
    limit: Natural

    def inactive(self) -> Collection[str]:
        keys = {"eigenvalue": ("limit",), "skip_connections": ("window", "threshold")}
        return keys.get(self.watch, ("window", "threshold", "limit"))


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


class SearchParams(Section, frozen=True):
    """The search settings of every task: the strategies and their settings. Tasks add spaces and sizes."""

    strategy: Literal["ms-darts", "darts", "darts-2nd", "sdarts-rs", "sdarts-adv", "single-level"]
    space: str
    seed: Seed
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    weights: WeightsParams
    alpha: AlphaParams
    penalty: Literal["none", "beta", "entropy", "discretization"]
    penalty_weight: NotNegative | Literal["auto"]
    penalty_start: Share
    mean_shift: MeanShiftParams
    perturbation: PerturbationParams
    single_level: SingleLevelParams
    early_stopping: EarlyStoppingParams

    def inactive(self) -> Collection[str]:
        used = {
            "ms-darts": "mean_shift",
            "sdarts-rs": "perturbation",
            "sdarts-adv": "perturbation",
            "single-level": "single_level",
        }.get(self.strategy)
        keys = [
            f"{name}.{key}"
            for name in ("mean_shift", "perturbation", "single_level")
            if name != used
            for key in type(getattr(self, name)).model_fields
        ]
        if self.strategy == "sdarts-rs":
            keys.append("perturbation.steps")
        if self.penalty == "none":
            keys += ["penalty_weight", "penalty_start"]
        return [*keys, *(f"early_stopping.{key}" for key in self.early_stopping.inactive())]


class DiscretizeParams(Section, frozen=True):
    epoch: Literal["last", "best"]


class RetrainParams(Section, frozen=True):
    seed: Seed
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]


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
        if self.search.alpha.warmup_epochs >= self.search.epochs and self.search.epochs > 1:
            raise ValueError(
                f"search.alpha.warmup_epochs is {self.search.alpha.warmup_epochs}; it must be less than"
                f" search.epochs ({self.search.epochs}), or the architecture is never updated"
            )
        probed, batch = self.search.mean_shift.probe_images, self.search.batch_size
        if probed is not None and (batch % probed or probed % self.train.devices):
            raise ValueError(
                f"search.mean_shift.probe_images is {probed}; it should divide search.batch_size ({batch}) and be a"
                f" multiple of train.devices ({self.train.devices}), because the images are spread evenly over the batch"
            )
        if self.latency.samples < 2 * self.latency.held_out:
            raise ValueError(
                f"latency.samples is {self.latency.samples}; it should be at least twice latency.held_out"
                f" ({self.latency.held_out}), because the others are what the predictor is fitted to"
            )
        for section, size in (("search", self.search), ("retrain", self.retrain)):
            if size.batch_size % self.train.devices:
                raise ValueError(
                    f"{section}.batch_size is {size.batch_size}; it should be a multiple of train.devices"
                    f" ({self.train.devices}), because each device gets an equal part of every batch"
                )
        return self


def _keys(content: dict[str, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for name, value in content.items():
        found += _keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found
