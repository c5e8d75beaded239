"""From the rows of a table to series without gaps: order, steps, gaps, and values that are missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stages.errors import UserError
from stages.sequences.data import Step
from stages.sequences.params import DataParams
from stages.sequences.prepare.table import Table, mistake
from stages.sequences.prepare.times import Calendar, Seconds, calendar_of, seconds_of

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Series:
    """Rows without gaps, one series after the other: N rows, V variables, S series."""

    names: tuple[str, ...]  # of the series
    calendar: Calendar
    seconds_N: Seconds  # UTC
    values_NV: NDArray[np.float64]
    edges: Ints  # (S + 1,): where series begin, and the end
    filled: dict[str, int]  # column -> values that were missing in rows of the file
    filled_rows: int  # rows that were missing
    trimmed: int  # rows without a value at the beginning or end of a series, which are left out


@dataclass(frozen=True, eq=False)
class _Sorted:
    """The table's rows, sorted by series and time."""

    table: Table
    data: DataParams
    names: tuple[str, ...]
    rows_N: Ints  # their places in the file
    codes_N: Ints  # the series of each
    seconds_N: Seconds

    def mistake(self, number: int, words: str) -> UserError:
        """A mistake in the time of a row, by its place in the sorted rows."""
        series = f" of the series {self.names[self.codes_N[number]]!r}" if self.data.series else ""
        where = self.table.place(int(self.rows_N[number])) + series
        return mistake(self.table.where, where, self.data.time, words)


def series_of(table: Table, data: DataParams) -> Series:
    """The series in a table. Raises UserError, which names row and column, for what cannot be used."""
    found = _sorted(table, data)
    if (np.diff(found.codes_N) != 0).all():
        raise UserError(
            f"{table.where} has {len(found.rows_N)} rows for {len(found.names)} series; a series needs several rows"
        )
    calendar = calendar_of(found.seconds_N, found.codes_N, data.zone)
    positions_N = calendar.positions(found.seconds_N)
    _check_steps(found, calendar, positions_N)
    return _without_gaps(found, calendar, positions_N)


def _sorted(table: Table, data: DataParams) -> _Sorted:
    """Raises UserError for rows that are not in the order of time within their series."""
    names, codes_N = _codes(table, data)
    seconds_N = seconds_of(table, codes_N, data)
    rows_N = np.argsort(codes_N, kind="stable")
    found = _Sorted(table, data, names, rows_N, codes_N[rows_N], seconds_N[rows_N])
    wrong_N = (np.diff(found.codes_N) == 0) & (np.diff(found.seconds_N) <= 0)
    if wrong_N.any():
        number = int(np.argmax(wrong_N)) + 1
        text, before = (str(table.times[int(rows_N[at])].as_py())[:40] for at in (number, number - 1))
        if found.seconds_N[number] == found.seconds_N[number - 1]:
            words = f"{text!r} is there twice, first in {table.place(int(rows_N[number - 1]))}; delete one of the rows"
            words += "" if data.series else ", or name the column of several series in data.series"
            words += "" if data.zone else ", or set data.zone if clocks were put back"
        else:
            words = f"{text!r} comes after {before!r}; sort the rows by time"
            words += "" if data.series else ", or name the column of several series in data.series"
        raise found.mistake(number, words)
    return found


def _codes(table: Table, data: DataParams) -> tuple[tuple[str, ...], Ints]:
    """The names of the series in the order of the file, and for each row the number of its series."""
    if table.series is None or data.series is None:
        return ("",), np.zeros(len(table.values_NV), np.int64)
    encoded = table.series.combine_chunks().dictionary_encode()
    if encoded.null_count:
        row = int(np.argmax(encoded.is_null().to_numpy(zero_copy_only=False)))
        raise mistake(
            table.where, table.place(row), data.series, "there is no series; name it, or delete the row"
        )
    return tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.int64)


def _check_steps(found: _Sorted, calendar: Calendar, positions_N: Ints) -> None:
    """Raises UserError for steps of several sizes and for gaps that are too long."""
    step, longest = calendar.step, found.data.longest_gap
    within_N = np.diff(found.codes_N) == 0
    steps_N = np.diff(positions_N)
    _check_step_of_each(found, calendar, steps_N, within_N)
    irregular_N = within_N & (steps_N % step.count != 0)
    if irregular_N.any():
        number = int(np.argmax(irregular_N)) + 1
        size = _size(Step(unit=step.unit, count=int(steps_N[number - 1])))
        clocks = "" if found.data.zone else ", or set data.zone if these days follow clocks that change"
        raise found.mistake(
            number,
            f"the row comes {size} after the one before, but most rows come after {step.in_words()}; bring the rows to one step"
            f"{clocks}",
        )
    long_N = within_N & (steps_N // step.count - 1 > longest)
    if long_N.any():
        number = int(np.argmax(long_N)) + 1
        raise found.mistake(
            number,
            f"{steps_N[number - 1] // step.count - 1} rows are missing before this one, more than data.longest_gap ({longest});"
            " add them, raise data.longest_gap, or give both parts different names in a column for data.series",
        )


def _check_step_of_each(found: _Sorted, calendar: Calendar, steps_N: Ints, within_N: NDArray) -> None:
    """Raises UserError when a series has another step than most rows."""
    if len(found.names) == 1:
        return
    codes_N = found.codes_N[1:][within_N]
    smallest_S = np.full(len(found.names), np.iinfo(np.int64).max)
    np.minimum.at(smallest_S, codes_N, steps_N[within_N])
    counts_S = np.bincount(codes_N, minlength=len(found.names))
    other_S = (counts_S >= 2) & (smallest_S != calendar.step.count)
    if other_S.any():
        code = int(np.argmax(other_S))
        size = _size(Step(unit=calendar.step.unit, count=int(smallest_S[code])))
        number = int(np.argmax(found.codes_N == code)) + 1
        raise found.mistake(
            number,
            f"rows of this series come after {size}, but most rows of the table after {calendar.step.in_words()}; give series of"
            " one step",
        )


def _size(step: Step) -> str:
    return step.in_words() if step.count else "no time"


def _without_gaps(found: _Sorted, calendar: Calendar, positions_N: Ints) -> Series:
    """Adds the missing rows, fills what is missing by straight lines, and cuts off ends without values."""
    step = calendar.step.count
    starts = np.flatnonzero(np.diff(found.codes_N, prepend=-1))
    ends = np.append(starts[1:], len(positions_N))
    lengths = (positions_N[ends - 1] - positions_N[starts]) // step + 1
    edges = np.append(0, np.cumsum(lengths))
    places_N = (
        edges[found.codes_N] + (positions_N - positions_N[starts][found.codes_N]) // step
    )  # in the result
    first_M = np.repeat(positions_N[starts] - edges[:-1] * step, lengths)
    seconds_M = calendar.seconds(first_M + np.arange(edges[-1]) * step)
    seconds_M[places_N] = found.seconds_N
    values_MV = np.full((edges[-1], found.table.values_NV.shape[1]), np.nan)
    values_MV[places_N] = found.table.values_NV[found.rows_N]
    there_M = np.zeros(edges[-1], bool)
    there_M[places_N] = True
    whole = Series(found.names, calendar, seconds_M, values_MV, edges, {}, 0, 0)
    return _filled(found, whole, there_M, places_N)


def _filled(found: _Sorted, whole: Series, there_M: NDArray[np.bool_], places_N: Ints) -> Series:
    values_MV = whole.values_NV
    kept_M = np.ones(len(values_MV), bool)
    missing: dict[str, NDArray[np.bool_]] = {}
    for column, name in enumerate([*found.data.targets, *found.data.covariates]):
        missing_M = np.isnan(values_MV[:, column])
        if not missing_M.any():
            continue
        begins, ends, cut = _runs(missing_M, whole.edges)
        _check_runs(found, name, begins, ends, places_N)
        for begin, end in zip(begins[cut], ends[cut], strict=True):
            kept_M[begin:end] = False
        missing[name] = missing_M
        known = np.flatnonzero(~missing_M)
        gaps = np.flatnonzero(missing_M)
        values_MV[gaps, column] = np.interp(gaps, known, values_MV[known, column])
    counts = {name: int((missing_M & there_M & kept_M).sum()) for name, missing_M in missing.items()}
    return replace(
        whole,
        seconds_N=whole.seconds_N[kept_M],
        values_NV=values_MV[kept_M],
        edges=np.append(0, np.cumsum(np.add.reduceat(kept_M.astype(np.int64), whole.edges[:-1]))),
        filled={name: count for name, count in counts.items() if count},
        filled_rows=int((kept_M & ~there_M).sum()),
        trimmed=int((there_M & ~kept_M).sum()),
    )


def _runs(missing_M: NDArray[np.bool_], edges: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Where values are missing: beginnings, ends, and which runs are at the beginning or end of a series."""
    changes = np.flatnonzero(np.diff(missing_M.astype(np.int8), prepend=0, append=0))
    bounds = np.unique(np.concatenate([changes, edges]))
    inside = missing_M[np.minimum(bounds[:-1], len(missing_M) - 1)]
    begins, ends = bounds[:-1][inside], bounds[1:][inside]
    return begins, ends, np.isin(begins, edges) | np.isin(ends, edges)


def _check_runs(found: _Sorted, column: str, begins: Ints, ends: Ints, places_N: Ints) -> None:
    """Raises UserError when too many values are missing one after the other, or all of them."""
    all_missing = int((ends - begins).sum()) == int(places_N[-1]) + 1
    long = np.flatnonzero((ends - begins > found.data.longest_gap) | all_missing)
    if len(long) == 0:
        return
    begin, end = int(begins[long[0]]), int(ends[long[0]])
    number = min(int(np.searchsorted(places_N, begin)), len(places_N) - 1)
    series = f" of the series {found.names[found.codes_N[number]]!r}" if found.data.series is not None else ""
    raise mistake(
        found.table.where,
        found.table.place(int(found.rows_N[number])) + series,
        column,
        f"{end - begin} values are missing from here on, more than data.longest_gap ({found.data.longest_gap}); fill them in,"
        " raise data.longest_gap, or name another column",
    )
