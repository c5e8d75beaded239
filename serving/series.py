"""Networks that forecast series.

Input ``series``: float32 (batch, look-back, variables), where all but the batch are fixed: the targets first, then the
covariates, in the user's units. Output ``forecast``: float32 (batch, horizon, targets), in the same units. The entry
``series`` of the metadata has the names and the times, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import ModelError, RequestError
from serving.forecasts import SeriesReader
from serving.kinds import Name, first_line, from_metadata
from serving.known import Known
from serving.settings import ServeSettings
from serving.stamps import Clock, Step
from serving.tables import Columns

_Name = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_STRICT = ConfigDict(strict=True, extra="forbid")


class _Step(BaseModel):
    model_config = _STRICT

    unit: Literal["seconds", "months"]
    count: _Count


class _Metadata(BaseModel):
    model_config = _STRICT

    targets: Annotated[list[_Name], Field(min_length=1)]
    covariates: list[_Name]
    lookback: _Count
    horizon: _Count
    step: _Step
    zone: str | None
    time: _Name
    time_format: str | None = None


@dataclass(frozen=True)
class Series:
    """A kind of network: serving/kinds.py."""

    name: ClassVar[Name] = "series"
    input: ClassVar[str] = "series"
    output: ClassVar[str] = "forecast"

    targets: tuple[str, ...]
    covariates: tuple[str, ...]
    lookback: int  # rows
    horizon: int  # rows
    clock: Clock
    time: str  # name of the column with times

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, metadata: Mapping[str, str], where: str) -> Series:
        try:
            said = _Metadata.model_validate(from_metadata(metadata, "series", None, where))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(("series", *map(str, first["loc"])))
            raise ModelError(
                f"{where}: metadata {place}: {first['msg']}, got {first['input']!r:.80}"
            ) from None
        names = [said.time, *said.targets, *said.covariates]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ModelError(f"{where}: metadata series names the column {doubled[0]!r:.80} twice")
        clock = Clock(Step(said.step.unit, said.step.count), _zone(said.zone, where), said.time_format)
        kind = cls(tuple(said.targets), tuple(said.covariates), said.lookback, said.horizon, clock, said.time)
        _prove(session, kind, where)
        return kind

    @property
    def variables(self) -> tuple[str, ...]:
        """The columns of the input."""
        return (*self.targets, *self.covariates)

    def columns(self) -> Columns:
        """What a table must have."""
        return Columns(self.variables, self.time, self.lookback)

    def reader(self, settings: ServeSettings) -> SeriesReader:
        return SeriesReader(settings)

    def described(self) -> Mapping[str, Any]:
        return {
            "series": {
                "targets": list(self.targets),
                "covariates": list(self.covariates),
                "lookback": self.lookback,
                "horizon": self.horizon,
                "step": asdict(self.clock.step),
                "zone": None if self.clock.zone is None else self.clock.zone.key,
                "time": self.time,
                "time_format": self.clock.form,
            }
        }

    def accepts(self, known: Known) -> str | None:
        if known.pictures:
            return "it is about pictures"
        example, truth = known.example, known.truth
        if example is None:
            return "it has a truth without an example" if truth else None
        lengths = {name: len(values) for name, values in example.columns.items()}
        if lengths != dict.fromkeys(self.variables, self.lookback):
            return (
                f"its example must have {self.lookback} numbers for each of {', '.join(self.variables):.200}"
            )
        if truth and {name: len(values) for name, values in truth.items()} != dict.fromkeys(
            self.targets, self.horizon
        ):
            return f"its truth must have {self.horizon} numbers for each of {', '.join(self.targets):.200}"
        if example.time is None:
            return None
        if len(example.time) != self.lookback:
            return f"its example must have {self.lookback} times"
        try:
            self.clock.go_on(example.time, self.horizon, lambda number: f"time {number + 1} of its example")
        except RequestError as error:
            return str(error)
        return None


def _zone(name: str | None, where: str) -> ZoneInfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, no name, a folder
        raise ModelError(f"{where}: no time zone is named {name!r:.80}, or tzdata is not installed") from None


def _prove(session: onnxruntime.InferenceSession, kind: Series, where: str) -> None:
    """Compares the graph with the metadata, and runs it with two batch sizes: one that loads may still fail."""
    shape = (kind.lookback, len(kind.variables))
    inputs = [(i.name, i.type, list(i.shape)) for i in session.get_inputs()]
    match inputs:
        case [(kind.input, "tensor(float)", [_, *rest])] if tuple(rest) == shape:
            pass
        case _:
            raise ModelError(
                f"{where}: input must be {kind.input}, float32 (batch, {shape[0]}, {shape[1]}) with only batch dynamic,"
                f" got {inputs}"
            )
    outputs = [(o.name, o.type, len(o.shape)) for o in session.get_outputs()]
    if outputs != [(kind.output, "tensor(float)", 3)]:
        raise ModelError(
            f"{where}: output must be {kind.output}, float32 (batch, horizon, targets), got {outputs}"
        )
    try:
        for batch in (1, 2):
            zeros = np.zeros((batch, *shape), np.float32)
            answer = np.asarray(session.run([kind.output], {kind.input: zeros})[0])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{where}: fails on a series of zeros ({first_line(error)})") from None
    if answer.shape != (2, kind.horizon, len(kind.targets)) or not np.isfinite(answer).all():
        raise ModelError(
            f"{where}: does not answer two series of zeros with forecasts, got shape {answer.shape}"
        )
