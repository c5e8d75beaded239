"""From the texts of a time column to seconds of UTC, with clocks that change, and from these to the step between rows.

Times in UTC decide what comes after what. Steps of whole days in a zone, and months, count on the calendar of the zone, where
a day may have 23 or 25 hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from stages.errors import UserError
from stages.sequences.data import Step
from stages.sequences.params import DataParams
from stages.sequences.prepare.table import Table, mistake

Seconds = NDArray[np.int64]
_OFFSET = r"[Tt ]\d[\d:.,]*\s*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"  # at the end of a time of ISO 8601
_DAY = 86_400
_UNIX = "unix"


def seconds_of(table: Table, codes_N: NDArray[np.int64], data: DataParams) -> Seconds:
    """The times (N,) in seconds of UTC. ``codes_N`` says which series each row belongs to. Raises UserError."""
    times, zoned = _parsed(table, data)
    if (missing_N := times.isna()).any():
        row = int(np.argmax(missing_N))
        raise _unreadable(table, data, row)
    seconds_N = times.as_unit("s").asi8
    if (inexact_N := times.as_unit("us").asi8 != seconds_N * 1_000_000).any():
        row = int(np.argmax(inexact_N))
        raise mistake(
            table.where,
            table.place(row),
            data.time,
            f"{_text(table, row)!r} is no whole second; write times in whole seconds (stretched, if need be: 0.01 s as 1 s)",
        )
    if zoned or data.zone is None:
        return seconds_N
    return _utc_of_clock(table, codes_N, seconds_N, data.zone, data.time)


def _parsed(table: Table, data: DataParams) -> tuple[pd.DatetimeIndex, bool]:
    """The times, NaT where there is none or it cannot be read, and whether they say their offset from UTC."""
    kind = table.times.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        return pd.DatetimeIndex(pd.to_datetime(table.times.to_pandas(), utc=True)), zoned
    texts = pd.Series(table.times.to_pandas(), dtype="str").str.strip()
    if data.time_format == _UNIX:
        numbers = pd.Series(pd.to_numeric(texts, errors="coerce"))
        return pd.DatetimeIndex(pd.to_datetime(numbers, unit="s", utc=True, errors="coerce")), True
    if data.time_format is not None:
        return _read(texts, data.time_format), bool(re.search("%z|%Z", data.time_format))
    offset_N = texts.str.contains(_OFFSET, na=False).to_numpy()
    for quarter in range(1, 5):
        texts = texts.str.replace(rf"^(\d{{4}})-?Q{quarter}$", rf"\1-{3 * quarter - 2:02d}", regex=True)
    parsed = _read(texts, "ISO8601")
    known_N = ~parsed.isna()
    if known_N.any() and len(np.unique(offset_N[known_N])) == 2:
        first = int(np.argmax(known_N))
        other = int(np.argmax(known_N & (offset_N != offset_N[first])))
        has, lacks = (first, other) if offset_N[first] else (other, first)
        raise mistake(
            table.where,
            table.place(lacks),
            data.time,
            f"{_text(table, lacks)!r} has no offset from UTC, but {_text(table, has)!r} ({table.place(has)}) has one; write one"
            " everywhere or nowhere",
        )
    return parsed, bool(offset_N.any())


def _read(texts: pd.Series, format: str) -> pd.DatetimeIndex:
    try:
        return pd.DatetimeIndex(pd.to_datetime(texts, format=format, utc=True, errors="coerce"))
    except ValueError as error:
        raise UserError(
            f"data.time_format is {format!r}, which is no format ({error}); write, for example, '%d.%m.%Y %H:%M'"
        ) from None


def _unreadable(table: Table, data: DataParams, row: int) -> UserError:
    text = _text(table, row)
    if not text:
        return mistake(
            table.where, table.place(row), data.time, "there is no time; add it, or delete the row"
        )
    if data.time_format is not None:
        words = f"{text!r} does not have the format data.time_format ({data.time_format}); correct it or the format"
    else:
        words = f"{text!r} is no time of ISO 8601, such as 2026-11-29 13:00; set data.time_format, for example to '%d.%m.%Y %H:%M'"
    return mistake(table.where, table.place(row), data.time, words)


def _text(table: Table, row: int) -> str:
    value = table.times[row].as_py()
    return "" if value is None else str(value)[:40]


def _utc_of_clock(table: Table, codes_N: NDArray, clock_N: Seconds, zone: str, column: str) -> Seconds:
    """UTC of what the clocks of a zone show. An hour that they show twice is told apart by the order of the rows."""
    clock = pd.DatetimeIndex(clock_N.astype("datetime64[s]"))
    shifted = clock.tz_localize(zone, ambiguous=np.ones(len(clock), bool), nonexistent="NaT")
    if (skipped_N := shifted.isna()).any():
        row = int(np.argmax(skipped_N))
        raise mistake(
            table.where,
            table.place(row),
            column,
            f"{_text(table, row)!r} does not exist in {zone}, where the clocks were put forward; correct it, or set data.zone to"
            " null if these are no local times",
        )
    twice_N = clock.tz_localize(zone, ambiguous="NaT").isna()
    if not twice_N.any():
        return shifted.tz_convert("UTC").as_unit("s").asi8
    summer_N = np.ones(len(clock), bool)
    for rows in _clusters(codes_N, clock_N, twice_N):
        back = np.flatnonzero(np.diff(clock_N[rows]) <= 0)
        if len(back) != 1:
            row = int(rows[0])
            raise mistake(
                table.where,
                table.place(row),
                column,
                f"{_text(table, row)!r} occurs twice in {zone}, where the clocks were put back, but the rows do not show which one"
                " this is; give both hours in their order, or write the offset from UTC, such as +02:00",
            )
        summer_N[rows[back[0] + 1 :]] = False
    return clock.tz_localize(zone, ambiguous=summer_N).tz_convert("UTC").as_unit("s").asi8


def _clusters(codes_N: NDArray, clock_N: Seconds, twice_N: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The rows of each series, in their order, that are in the same doubled hour."""
    rows = np.flatnonzero(twice_N)
    rows = rows[np.argsort(codes_N[rows], kind="stable")]
    new = (np.diff(codes_N[rows]) != 0) | (np.abs(np.diff(clock_N[rows])) > _DAY)
    return np.split(rows, np.flatnonzero(new) + 1)


@dataclass(frozen=True)
class Calendar:
    """What counts steps: seconds of UTC, days on the clocks of a zone, or months."""

    step: Step
    zone: str | None
    local: bool  # whether the clock of the zone counts, instead of UTC
    start: int = 0  # months: seconds from the beginning of a month to the times in it
    month_ends: bool = False  # months: times are in the last days

    def positions(self, seconds_N: Seconds) -> Seconds:
        """Numbers (N,) of which a step is ``step.count``."""
        clock_N = on_the_clock(seconds_N, self.zone) if self.local else seconds_N
        return _months(clock_N)[0] if self.step.unit == "months" else clock_N

    def seconds(self, positions_N: Seconds) -> Seconds:
        """The times in seconds of UTC for positions. Clocks that skip a time show the next one instead."""
        if self.step.unit == "months":
            first_N = positions_N.astype("datetime64[M]")
            if self.month_ends:
                days = (first_N + 1).astype("datetime64[D]") - 1
                positions_N = days.astype("datetime64[s]").astype(np.int64) + self.start % _DAY
            else:
                positions_N = first_N.astype("datetime64[s]").astype(np.int64) + self.start
        if not (self.local and self.zone):
            return positions_N
        clock = pd.DatetimeIndex(positions_N.astype("datetime64[s]"))
        moments = clock.tz_localize(
            self.zone, ambiguous=np.ones(len(clock), bool), nonexistent="shift_forward"
        )
        return moments.tz_convert("UTC").as_unit("s").asi8


def on_the_clock(seconds_N: Seconds, zone: str | None) -> Seconds:
    """What the clocks of a zone show, as if it were UTC."""
    if zone is None:
        return seconds_N
    moments = pd.DatetimeIndex(seconds_N.astype("datetime64[s]")).tz_localize("UTC").tz_convert(zone)
    return moments.tz_localize(None).as_unit("s").asi8


def calendar_of(seconds_N: Seconds, codes_N: NDArray[np.int64], zone: str | None) -> Calendar:
    """The step that most rows keep from the row before. The rows are sorted by series and time."""
    within = np.flatnonzero(np.diff(codes_N) == 0) + 1
    clock_N = on_the_clock(seconds_N, zone)
    if (np.diff(clock_N)[within - 1] >= 28 * _DAY).all() and (found := _monthly(clock_N, within, zone)):
        return found
    if zone is not None and (np.diff(clock_N)[within - 1] % _DAY == 0).all():
        return Calendar(Step(unit="seconds", count=_most(np.diff(clock_N)[within - 1])), zone, True)
    return Calendar(Step(unit="seconds", count=_most(np.diff(seconds_N)[within - 1])), zone, False)


def _monthly(clock_N: Seconds, within: NDArray, zone: str | None) -> Calendar | None:
    """The calendar of times that are one or more months apart: on the same day, or all at the ends of months."""
    months_N, since_N, lasts_N = _months(clock_N)
    count = _most(np.diff(months_N)[within - 1])
    step = Step(unit="months", count=count)
    if len(np.unique(since_N)) == 1:
        return Calendar(step, zone, zone is not None, int(since_N[0]))
    if lasts_N.all() and len(np.unique(since_N % _DAY)) == 1:
        return Calendar(step, zone, zone is not None, int(since_N[0] % _DAY), month_ends=True)
    return None


def _months(clock_N: Seconds) -> tuple[Seconds, Seconds, NDArray[np.bool_]]:
    """Months since 1970, seconds since the beginning of the month, and whether the day is the month's last."""
    times = clock_N.astype("datetime64[s]")
    months = times.astype("datetime64[M]")
    lasts = (times.astype("datetime64[D]") + 1).astype("datetime64[M]") != months
    return months.astype(np.int64), (times - months.astype("datetime64[s]")).astype(np.int64), lasts


def _most(differences: Seconds) -> int:
    """The most frequent difference; the smaller one of two."""
    values, counts = np.unique(differences, return_counts=True)
    return int(values[np.argmax(counts)])
