"""params.yaml, validated as a whole before any stage works: a typing error costs a second, not a night."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.errors import UserError

PARAMS_FILE = Path("params.yaml")

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataParams(Section):
    name: Literal["digits", "cifar10", "cifar100", "svhn", "fashion_mnist", "npz", "imagefolder"]
    root: str
    image_size: Count | None
    mirror: bool | Literal["auto"]
    valid_fraction: Fraction
    test_fraction: Fraction
    seed: Seed


class WeightsParams(Section):
    learning_rate: Positive
    learning_rate_end: NotNegative
    momentum: Share
    weight_decay: NotNegative
    gradient_clip: Positive


class AlphaParams(Section):
    learning_rate: Positive
    weight_decay: NotNegative
    warmup_epochs: Natural


class MeanShiftParams(Section):
    samples: Count
    iterations: Count
    bandwidth: Positive | Literal["auto"]
    radius_start: NotNegative
    radius_end: NotNegative
    sign: Literal[1, -1]
    temperature: Positive


class PerturbationParams(Section):
    radius_start: NotNegative
    radius_end: NotNegative
    steps: Count


class SingleLevelParams(Section):
    relaxation: Literal["softmax", "sigmoid"]


class EarlyStoppingParams(Section):
    watch: Literal["none", "eigenvalue", "skip_connections"]
    window: Count
    threshold: Positive
    limit: Natural


class TrainParams(Section):
    devices: Count


class SearchParams(Section):
    strategy: Literal["ms-darts", "darts", "darts-2nd", "sdarts-rs", "sdarts-adv", "single-level"]
    space: Literal["s1", "s2", "s3", "s4", "s5", "nasbench201"]
    seed: Seed
    epochs: Count
    images: Annotated[int, Field(ge=4)] | None
    batch_size: Annotated[int, Field(ge=2)]
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    exclude_none: bool
    cutout: Natural | Literal["auto"]
    weights: WeightsParams
    alpha: AlphaParams
    mean_shift: MeanShiftParams
    perturbation: PerturbationParams
    single_level: SingleLevelParams
    early_stopping: EarlyStoppingParams
    curvature_images: Natural
    compile: bool
    benchmark_table: str | None


class DiscretizeParams(Section):
    epoch: Literal["last", "best"]


class RetrainParams(Section):
    seed: Seed
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    learning_rate: Positive
    momentum: Share
    weight_decay: NotNegative
    gradient_clip: Positive
    drop_path: Share
    cutout: Natural
    label_smoothing: Share
    auxiliary_weight: NotNegative


class ExportParams(Section):
    opset: Annotated[int, Field(ge=18, le=23)]  # below 18 the exporter silently converts nothing
    latency_repeats: Count
    int8_images: Natural
    seed: Seed


class RegistryParams(Section):
    name: Annotated[str, Field(min_length=1, pattern=r"^[^/:'\"]+$")]
    min_gain: Share
    significance: Fraction | None
    max_difference: Positive
    max_latency_ms: Positive | None
    max_size_mb: Positive | None
    max_int8_drop: Share


class ReportParams(Section):
    examples: Natural


class Params(Section):
    """All of params.yaml."""

    data: DataParams
    train: TrainParams
    search: SearchParams
    discretize: DiscretizeParams
    retrain: RetrainParams
    export: ExportParams
    registry: RegistryParams
    report: ReportParams
    serve: dict[str, Any] | None = None  # the server's, which checks it

    @model_validator(mode="after")
    def _across_keys(self) -> Params:
        if self.search.alpha.warmup_epochs >= self.search.epochs and self.search.epochs > 1:
            raise ValueError(
                f"search.alpha.warmup_epochs is {self.search.alpha.warmup_epochs}; it must be less than"
                f" search.epochs ({self.search.epochs}), or the architecture never moves"
            )
        for section, size in (("search", self.search), ("retrain", self.retrain)):
            if size.batch_size % self.train.devices:
                raise ValueError(
                    f"{section}.batch_size is {size.batch_size}; it should be a multiple of train.devices"
                    f" ({self.train.devices}), each of which takes an equal share of every batch"
                )
            if self.search.space != "nasbench201" and size.cells < 3:
                raise ValueError(
                    f"{section}.cells is {size.cells}; it should be 3 or more, or no cell is a normal one"
                )
            if self.search.space != "nasbench201" and size.stages != 3:
                raise ValueError(
                    f"{section}.stages is {size.stages}; it should be 3 in all spaces but nasbench201"
                )
        if self.search.benchmark_table is not None and self.search.space != "nasbench201":
            raise ValueError(
                f"search.benchmark_table is set, but search.space is {self.search.space}; it should be null, for the"
                " table is of nasbench201"
            )
        if self.data.valid_fraction + self.data.test_fraction >= 1:
            raise ValueError(
                f"data.valid_fraction and data.test_fraction are {self.data.valid_fraction} and"
                f" {self.data.test_fraction}; together they must leave images to train on (be less than 1)"
            )
        return self


def load(path: Path = PARAMS_FILE, changes: Mapping[str, Any] | None = None) -> Params:
    """Reads the file, with the values of some keys (``search.seed``) replaced, and validates all of it.

    Raises UserError with one line for every mistake in it.
    """
    content = read(path)
    for key, value in (changes or {}).items():
        replace(content, key, value)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        where = f"{path}, with the changes asked for" if changes else path
        raise UserError(f"{where}: {'; '.join(_messages(error))}") from None


def read(path: Path, typ: Literal["safe", "rt"] = "safe") -> dict[str, Any]:
    """The file's sections, not validated; "rt" keeps comments for writing it again. Raises UserError."""
    try:
        content = YAML(typ=typ).load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not in {Path.cwd()}; run stages from the project's folder") from None
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line} is not valid YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold the sections {', '.join(Params.model_fields)}; it holds {content!r}"
        )
    return content


def replace(content: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key. Raises UserError when what holds it is no section."""
    *sections, name = key.split(".")
    node: Any = content
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise UserError(f"{key} is unknown; {'.'.join(sections)} is a value, not a section")
    node[name] = value


def _messages(error: ValidationError) -> list[str]:
    """One message a key: what a key of several types should be is joined by "or"."""
    expected: dict[str, list[str]] = {}
    messages, suggested = [], set()
    for detail in sorted(error.errors(), key=lambda detail: detail["type"] == "missing"):
        location = _without_union_branches(detail["loc"])
        key = ".".join(map(str, location))
        match detail["type"]:
            case "extra_forbidden":
                meant, hint = _suggestion(location)
                suggested.add(meant)
                messages.append(f"{key} is unknown; {hint}")
            case "missing" if key not in suggested:
                messages.append(f"{key} is missing; add it, as in the params.yaml that came with the project")
            case "missing":
                pass  # written with a typing error, which has its message
            case "value_error":
                messages.append(detail["msg"].removeprefix("Value error, "))
            case _:
                wish = re.sub(r"^\w+ should ", "", detail["msg"])
                expected.setdefault(f"{key} is {detail['input']!r}", []).append(wish)
    return messages + [f"{what}; it should {' or '.join(wishes)}" for what, wishes in expected.items()]


def _without_union_branches(location: Sequence[str | int]) -> list[str | int]:
    """The location without the union branches pydantic adds below a key that is no section."""
    kept: list[str | int] = []
    section: Any = Params
    for part in location:
        kept.append(part)
        field = section.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        ):
            break
        section = field.annotation
    return kept


def _suggestion(location: Sequence[str | int]) -> tuple[str | None, str]:
    """The key that was meant, if there is one near, and the hint: in the same section, else anywhere."""
    section: Any = Params
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    wrong, prefix = str(location[-1]), "".join(f"{part}." for part in location[:-1])
    if close := difflib.get_close_matches(wrong, section.model_fields, n=1, cutoff=0.5):
        return f"{prefix}{close[0]}", f"did you mean {prefix}{close[0]}?"
    everywhere = {key.rsplit(".", 1)[-1]: key for key in _keys(Params)}
    if wrong in everywhere:
        return everywhere[wrong], f"did you mean {everywhere[wrong]}?"
    return None, f"{prefix.rstrip('.') or 'the file'} has {', '.join(section.model_fields)}"


def _keys(section: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += _keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
