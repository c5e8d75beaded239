"""Splits series in time, and cuts windows out of the parts.

Two moments divide the rows of all series: training rows come before the first, test rows from the second on. So nothing that a
network has learned from is later than what it is validated or tested on, whatever series it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.errors import UserError
from stages.sequences.data import SPLITS, Split, Step
from stages.sequences.params import DataParams
from stages.sequences.prepare.series import Ints, Series

_SECONDS_PER_DAY = 86_400
_CONSTANT = 1e-9  # a series of a scale below this share of its values repeats itself but for rounding
_RESOLUTION = 2.0**-24  # of float32
FEWEST = 4  # training windows


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows of S series in three parts, and what is known from the training rows."""

    names: Sequence[str]
    rows: Sequence[Sequence[int]]  # per series: its first row, the first of val, the first of test, the end
    values_NV: NDArray[np.float64]
    seconds_N: Ints
    scales_SK: NDArray[np.float64]
    season: int
    left_out: dict[str, str]
    remarks: Sequence[str]

    def training_rows(self) -> NDArray[np.bool_]:
        """Which rows (N,) are training rows."""
        training_N = np.zeros(len(self.values_NV), bool)
        for first, valid, _, _ in self.rows:
            training_N[first:valid] = True
        return training_N


def split(series: Series, data: DataParams, where: str) -> Parts:
    """Divides series in time. Those that are too short or constant are left out. Raises UserError if none is left."""
    rows_S4 = _cut(series, data)
    training_S = rows_S4[:, 1] - rows_S4[:, 0]
    season, remarks = _season(series.calendar.step, data, int(training_S.max()))
    needed = max(data.lookback + data.horizon, season + 1)
    if training_S.max() < needed:
        raise UserError(_too_short(where, len(series.names), int(training_S.max()), data, season))
    left_out: dict[str, str] = {}
    kept: list[int] = []
    scales: list[NDArray[np.float64]] = []
    for number, name in enumerate(series.names):
        if training_S[number] < needed:
            left_out[name] = f"{training_S[number]} training rows, {needed} are needed"
            continue
        first, valid = rows_S4[number, :2]
        scale_K = scale_of(series.values_NV[first:valid, : len(data.targets)], season)
        largest_K = np.abs(series.values_NV[first:valid, : len(data.targets)]).max(axis=0)
        constant = [
            target
            for target, small in zip(data.targets, scale_K <= _CONSTANT * largest_K, strict=True)
            if small
        ]
        if not constant:
            kept.append(number)
            scales.append(scale_K)
        elif len(series.names) == 1:
            raise UserError(_constant(where, constant[0], season, series.values_NV[first:valid], data))
        else:
            left_out[name] = f"its target {constant[0]} repeats itself exactly"
    if not kept:
        raise UserError(
            f"{where}: in every series that is long enough, a target repeats itself exactly in the training part, for example"
            f" {next(name for name, why in left_out.items() if 'exactly' in why)!r}; take targets that change, or another"
            " data.season"
        )
    if series.trimmed:
        remarks = [
            *remarks,
            f"{series.trimmed} rows at the ends of series are left out, because they lack values",
        ]
    return _only(
        series,
        rows_S4,
        kept,
        Parts((), (), series.values_NV, series.seconds_N, np.array(scales), season, left_out, remarks),
    )


def _cut(series: Series, data: DataParams) -> Ints:
    """Per series (S, 4): its first row, the first of val, the first of test, and the end."""
    times = np.sort(series.seconds_N)
    moments = [
        times[min(round(len(times) * share), len(times) - 1)]
        for share in (1 - data.valid_fraction - data.test_fraction, 1 - data.test_fraction)
    ]
    rows = []
    for first, end in zip(series.edges[:-1], series.edges[1:], strict=True):
        inside = np.searchsorted(series.seconds_N[first:end], moments)
        rows.append([first, *(first + inside), end])
    return np.array(rows, dtype=np.int64)


def _only(series: Series, rows_S4: Ints, kept: Sequence[int], parts: Parts) -> Parts:
    """The parts with the rows of these series alone."""
    numbers = np.concatenate([np.arange(rows_S4[number, 0], rows_S4[number, 3]) for number in kept])
    rows, begin = [], 0
    for number in kept:
        rows.append([int(begin + row - rows_S4[number, 0]) for row in rows_S4[number]])
        begin = rows[-1][-1]
    return Parts(
        [series.names[number] for number in kept],
        rows,
        parts.values_NV[numbers],
        parts.seconds_N[numbers],
        parts.scales_SK,
        parts.season,
        parts.left_out,
        parts.remarks,
    )


def _season(step: Step, data: DataParams, longest: int) -> tuple[int, list[str]]:
    """The season, and what is to be said about it. ``longest``: training rows of the longest series."""
    if data.season != "auto":
        return data.season, []
    season = usual_season(step)
    if longest < 2 * season:
        return 1, [
            f"the training part is shorter than two seasons of {season} rows, so the seasonal naive forecast repeats the last"
            " row (data.season)"
        ]
    return season, []


def usual_season(step: Step) -> int:
    """The rows after which series of a step usually repeat themselves: a day, a week, or a year; 1 if there is no such number."""
    if step.unit == "months":
        return 12 // step.count if 12 % step.count == 0 else 1
    if step.count == 7 * _SECONDS_PER_DAY:
        return 52
    if step.count == _SECONDS_PER_DAY:
        return 7
    if step.count >= 60 and _SECONDS_PER_DAY % step.count == 0:
        return _SECONDS_PER_DAY // step.count
    return 1


def scale_of(targets_NK: NDArray[np.float64], season: int) -> NDArray[np.float64]:
    """The mean absolute error (K,) of repeating the value of one season before, which MASE divides by (Hyndman, Koehler 2006)."""
    return np.abs(targets_NK[season:] - targets_NK[:-season]).mean(axis=0)


def _too_short(where: str, several: int, training: int, data: DataParams, season: int) -> str:
    share = f"{1 - data.valid_fraction - data.test_fraction:.0%} of the time"
    which = "the training part" if several == 1 else "the longest training part of a series"
    if season + 1 > data.lookback + data.horizon:
        need = f"data.season ({season}) needs {season + 1}; lower it"
    else:
        need = f"data.lookback ({data.lookback}) and data.horizon ({data.horizon}) need {data.lookback + data.horizon}; lower these"
    return f"{where}: {which} ({share}) has {training} rows, but {need}, or give more rows"


def _constant(where: str, target: str, season: int, values_NV: NDArray, data: DataParams) -> str:
    column_N = values_NV[:, data.targets.index(target)]
    if column_N.min() == column_N.max():
        return (
            f"{where}, column {target!r} is {column_N[0]:g} in all training rows; there is nothing to forecast, so take it out of"
            " data.targets"
        )
    return (
        f"{where}, column {target!r} repeats itself exactly after {season} rows (data.season) in the training part, so that no"
        " error can be compared with that of repeating it; set data.season to 1"
    )


def check_resolution(parts: Parts, data: DataParams, where: str) -> None:
    """Raises UserError for a column whose changes get lost in the 32 bits in which networks compute."""
    training_NV = parts.values_NV[parts.training_rows()]
    deviation_V = training_NV.std(axis=0)
    lost_V = (np.ptp(training_NV, axis=0) > 0) & (
        np.abs(training_NV).max(axis=0) * _RESOLUTION > 0.01 * deviation_V
    )
    for column in np.flatnonzero(lost_V):
        name = [*data.targets, *data.covariates][int(column)]
        raise UserError(
            f"{where}, column {name!r}: values near {training_NV[0, column]:g} vary by {deviation_V[column]:.2g}, which gets"
            " lost when networks compute with 32 bits; subtract a number from the column, or take its differences"
        )


def windows(parts: Parts, data: DataParams, part: Split) -> tuple[Ints, Ints]:
    """The first row of each look-back (cases,), and the number of its series (cases,).

    Training: every window in the training part. Validation and test: windows whose forecasts lie in the part, ``stride`` rows
    apart; their look-backs may begin before it.
    """
    reach = data.lookback + data.horizon
    origins: list[Ints] = []
    for rows in parts.rows:
        first, begin, end = rows[0], rows[SPLITS.index(part)], rows[SPLITS.index(part) + 1]
        if part == "train":
            origins.append(np.arange(first, end - reach + 1))
        else:
            begin = max(begin, first + data.lookback)
            forecasts = np.arange(begin, end - data.horizon + 1, data.stride or data.horizon)
            origins.append(forecasts - data.lookback)
    lengths = [len(each) for each in origins]
    return np.concatenate(origins).astype(np.int64), np.repeat(np.arange(len(lengths)), lengths)


def check_windows(counts: dict[str, int], parts: Parts, data: DataParams, where: str) -> None:
    """Raises UserError when a part has no windows, or the training part next to none."""
    for part, key in (("val", "valid_fraction"), ("test", "test_fraction")):
        if counts[part] == 0:
            place = SPLITS.index(part)
            longest = max(rows[place + 1] - rows[place] for rows in parts.rows)
            name = "validation" if part == "val" else part
            has = f"has {longest} rows" if len(parts.rows) == 1 else f"has at most {longest} rows in a series"
            raise UserError(
                f"{where}: the {name} part (data.{key} {getattr(data, key)}) {has}, but data.horizon needs {data.horizon}; raise"
                f" data.{key}, lower data.horizon, or give more rows"
            )
    if counts["train"] < FEWEST:
        raise UserError(
            f"{where}: the training part has {counts['train']} windows of data.lookback + data.horizon"
            f" ({data.lookback + data.horizon}) rows; {FEWEST} are the least: lower these, or give more rows"
        )
