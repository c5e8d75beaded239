"""Reads what the stage prepare has written: series in their own units with the origins of their windows, or tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stages.errors import UserError
from stages.evaluation import Metric
from stages.plumbing.files import DATA
from stages.records import DataCard
from stages.sequences.params import BITS, MASE, TEXT

if TYPE_CHECKING:
    from models.sequences.builders import Shape

VALUES, TIMES, SCALES = "values.npy", "times.npy", "scales.npy"
TOKENS, LENGTHS, CHARACTERS = "tokens.npy", "lengths.npy", "characters.npy"
SPLITS = ("train", "val", "test")
Split = Literal["train", "val", "test"]
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Step(BaseModel):
    """The time from one row to the next. Months count in the zone of the times, and so do whole days if there is a zone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Literal["seconds", "months"]
    count: int

    def in_words(self, steps: int = 1) -> str:
        """A number of steps for readers: 24 steps of an hour are "24 hours"."""
        count = steps * self.count
        if self.unit == "months":
            return _counted(count, "month")
        size, name = next(unit for unit in _UNITS if self.count % unit[0] == 0)
        return _counted(count // size, name)

    def every(self) -> str:
        """How often rows come: "every hour", "every 15 minutes"."""
        return f"every {self.in_words().removeprefix('1 ')}"


class SequenceCard(DataCard):
    """data.json: what later stages need to know about series or a text."""

    kind: Literal["series", "text"]
    # Series. Variables are the targets, then the covariates; all in the user's units.
    time: str = ""  # name of the time column
    time_format: str | None = None  # of its times, unless they are in ISO 8601
    targets: Sequence[str] = ()
    covariates: Sequence[str] = ()
    lookback: int = 0  # rows
    horizon: int = 0  # rows
    season: int = 1  # rows after which the seasonal naive forecast repeats the series
    mean: Sequence[float] = ()  # per variable, of the training rows
    std: Sequence[float] = ()  # likewise; 1 where a variable is constant
    step: Step = Step(unit="seconds", count=1)
    zone: str | None = None  # of the user's times, such as Europe/Berlin; None: UTC, or nobody has said
    series: Sequence[str] = ()  # names; empty where the table is one series
    rows: Sequence[
        Sequence[int]
    ] = ()  # per series: its first row, the first of val, the first of test, and the end
    filled: Mapping[str, int] = Field(default_factory=dict)  # column -> values that were missing
    filled_rows: int = 0  # rows that were missing
    left_out: Mapping[str, str] = Field(default_factory=dict)  # series -> why it is not used
    remarks: Sequence[str] = ()  # what else prepare has to say
    # Text.
    unit: Literal["characters", "words"] = "characters"
    vocabulary: Sequence[str] = ()  # the entry of each token; that of UNKNOWN stands for everything else
    chunk: int = 0  # tokens in one case
    bounds: Sequence[int] = ()  # tokens: the first of val, the first of test, and the end

    @property
    def variables(self) -> list[str]:
        """The columns of the values."""
        return [*self.targets, *self.covariates]

    def schema_of_a_case(self) -> dict[str, Any]:
        if self.kind == TEXT:
            return {"unit": self.unit, "vocabulary": len(self.vocabulary), "chunk": self.chunk}
        return {
            "targets": self.targets,
            "covariates": self.covariates,
            "lookback": self.lookback,
            "horizon": self.horizon,
            "step": self.step.model_dump(),
        }

    def in_words(self) -> str:
        if self.kind == TEXT:
            return (
                f"a text of {self.bounds[-1]} {self.unit}, {len(self.vocabulary)} entries in the vocabulary"
            )
        parts = [_counted(len(self.targets), "target")]
        if self.covariates:
            parts.append(_counted(len(self.covariates), "covariate"))
        if self.series:
            parts.append(f"{len(self.series)} series")
        return (
            f"{self.rows[-1][-1]} rows, one {self.step.every()}, {', '.join(parts)};"
            f" {self.step.in_words(self.lookback)} back, {self.step.in_words(self.horizon)} ahead"
        )

    def notices(self) -> list[str]:
        lines = []
        if self.filled or self.filled_rows:
            counts = ", ".join(f"{count} in {name}" for name, count in self.filled.items())
            parts = [_counted(self.filled_rows, "missing row")] if self.filled_rows else []
            parts += [f"missing values ({counts})"] if counts else []
            lines.append(f"filled by straight lines: {' and '.join(parts)} (data.longest_gap)")
        if self.left_out:
            shown = [f"{name} ({reason})" for name, reason in list(self.left_out.items())[:5]]
            more = f", and {len(self.left_out) - len(shown)} more" if len(self.left_out) > len(shown) else ""
            lines.append(f"series left out: {', '.join(shown)}{more}")
        return [*lines, *self.remarks]


UNKNOWN = 0  # the token of what the training part does not have


def read_card() -> SequenceCard:
    """Reads data.json. Raises UserError when the file is missing or damaged."""
    # No field has the words of a metric in its name, so that both kinds are read alike.
    return SequenceCard.read(DATA / "data.json", MASE)


def metric_of(card: SequenceCard) -> Metric:
    """The metric of the kind of data."""
    return BITS if card.kind == TEXT else MASE


def shape_of(card: SequenceCard, embedding: int) -> Shape:
    """The sizes of the networks for these data; ``embedding`` is that of texts."""
    from models.sequences.builders import TextShape  # torch, which not every caller needs
    from models.sequences.skeleton import SeriesShape

    if card.kind == TEXT:
        return TextShape(len(card.vocabulary), embedding)
    return SeriesShape(card.lookback, card.horizon, len(card.variables), len(card.targets))


def read_array(name: str) -> NDArray[Any]:
    """An array that prepare has written, memory-mapped; writing to it does not change the file. Raises UserError."""
    path = DATA / name
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}); delete {DATA} and run `dvc repro`") from None


def read_windows(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The windows of a split: the first row of each look-back (cases,), and the number of its series (cases,)."""
    return read_array(f"{split}_origins.npy"), read_array(f"{split}_series.npy")


def read_text(card: SequenceCard, split: Split) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """A split of the text: its tokens (N,), and the characters of the file that each of them stands for (N,)."""
    start, end = _part([0, *card.bounds], split)
    return read_array(TOKENS)[start:end], read_array(CHARACTERS)[start:end]


def cases_sha256(card: SequenceCard) -> str:
    """The hash of the test cases: what is to be forecast, and the scales of the errors; or the chunks of text.

    Neither the look-back nor the covariates are part of the cases of series: networks that look at more of the past
    answer the same questions.
    """
    if card.kind == TEXT:
        tokens, characters = read_text(card, "test")
        about: Sequence[Any] = (card.unit, card.chunk, card.vocabulary)
        arrays = (tokens, characters)
    else:
        origins, series = read_windows("test")
        about = (card.targets, card.horizon)
        targets = read_array(VALUES)[:, : len(card.targets)]
        first = min(origins.min() + card.lookback, len(targets) - 1)
        arrays = (targets[first:], origins + card.lookback - first, series, read_array(SCALES))
    digest = hashlib.sha256(json.dumps(about).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _part(edges: Sequence[int], split: Split) -> tuple[int, int]:
    place = SPLITS.index(split)
    return edges[place], edges[place + 1]


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
