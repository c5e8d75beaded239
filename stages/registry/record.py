"""registry.json: what became of a version, and why. The version's tag ``report`` holds the same.

In the file, the names of scores contain the metric's name: ``test_accuracy`` is ``score`` here, and
``accuracy_drop`` of int8 is ``drop``. Files from before there were several metrics lack ``metric``, and are
about accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from stages.errors import UserError
from stages.plumbing.files import write_json

_NESTED = ("compared", "int8")  # fields that hold scores, too


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Record):
    """What a version was made from."""

    model_sha256: str
    data_sha256: str
    dvc_lock_sha256: str | None
    git_commit: str
    prefect_flow_run: str | None
    runs: dict[str, str | None]  # stage -> MLflow run; None where the tracking store has no such run


class Compared(_Record):
    """The champion that a version was compared with, and the comparison.

    Also the champion's scores by the other forms of the metric, by their names in the file: test_balanced_accuracy.
    """

    model_config = ConfigDict(extra="allow")

    score: float
    latency_ms: float | None
    size_bytes: int | None
    gain: float
    only_challenger_right: int | None = None  # cases; only where answers are right or wrong
    only_champion_right: int | None = None
    challenger_better: int | None = None  # cases; only where answers are numbers
    champion_better: int | None = None
    p_value: float
    exceeds_noise: bool


class Int8(_Record):
    """Whether the version includes the quantized file, and why; also what export.json says about it."""

    model_config = ConfigDict(extra="allow")

    file: str
    sha256: str
    score: float
    drop: float  # of the score, from the float file's; positive means worse, whatever the metric's direction
    included: bool
    reason: str


class RegistryRecord(_Record):
    """registry.json."""

    model: str
    version: int
    promoted: bool
    reason: str
    refusals: list[str]
    waits: bool = False  # it has passed the gate, and a person has not yet decided
    aliases: list[str]
    champion_before: int | None
    champion_after: int | None
    metric: str
    score: float | None  # None: not a number, which JSON cannot hold
    latency_ms: float | None
    size_bytes: int | None
    measures: dict[str, float]  # further numbers that the task gives, such as calibration_error
    compared: Compared | None
    origin: Origin
    test_sha256: str
    test_uses: int | None = None  # networks judged on these test cases, this one included
    int8: Int8 | None = None
    gate: dict[str, float | None]  # the settings it was judged by

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Flat, with the metric's name in the names of scores.

        Leaves out the fields of the other kind of metric.
        """
        content: dict[str, Any] = {}
        for name, value in handler(self).items():
            match name:
                case "waits" | "test_uses" if not value:
                    pass
                case "measures" | "origin":
                    content |= value
                case "compared" | "int8" if value is not None:
                    counts = ("_right", "_better")
                    content[name] = {
                        _written(key, self.metric): inner
                        for key, inner in value.items()
                        if inner is not None or not key.endswith(counts)
                    }
                case _:
                    content[_written(name, self.metric)] = value
        return content

    @model_validator(mode="before")
    @classmethod
    def _as_read(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "origin" in content:
            return content
        metric = content.get("metric", "accuracy")
        names = {_written(name, metric): name for name in ("score", "drop")}
        found: dict[str, Any] = {"metric": metric, "measures": {}, "origin": {}}
        for name, value in content.items():
            name = names.get(name, name)
            if name in Origin.model_fields:
                found["origin"][name] = value
            elif name not in cls.model_fields:
                found["measures"][name] = value
            elif name in _NESTED and isinstance(value, Mapping):
                found[name] = {names.get(key, key): inner for key, inner in value.items()}
            else:
                found[name] = value
        return found

    @staticmethod
    def read(path: Path) -> RegistryRecord:
        """Reads registry.json. Raises UserError when it is missing or damaged."""
        try:
            return RegistryRecord.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} is missing; `dvc repro` makes it") from None
        except (ValidationError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is damaged ({reason}); delete it and run `dvc repro`") from None

    @staticmethod
    def parse(text: str) -> RegistryRecord:
        """Reads the JSON of a file or a tag. Raises ValueError."""
        return RegistryRecord.model_validate(json.loads(text))

    def write(self, path: Path) -> None:
        """Writes registry.json, atomically."""
        write_json(path, self.model_dump())


def _written(name: str, metric: str) -> str:
    """A field's name in the file."""
    return {"score": f"test_{metric}", "drop": f"{metric}_drop"}.get(name, name)
