"""The columns of a user's table, whatever file they come from, and how a mistake in one of its rows is reported."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.errors import UserError
from stages.sequences.params import DataParams

MOST_VALUES = 50_000_000  # rows x columns that are read; these take about 1.5 GB of memory


@dataclass(frozen=True)
class Wanted:
    """The columns that the settings name."""

    time: str
    series: str | None
    variables: Sequence[str]

    @property
    def texts(self) -> list[str]:
        """The columns that are not numbers."""
        return [self.time, *([self.series] if self.series is not None else [])]

    @property
    def names(self) -> list[str]:
        return [*self.texts, *self.variables]


@dataclass(frozen=True, eq=False)
class Table:
    """What was read: N rows in the order of the file, V variables."""

    where: str  # the file, as messages name it
    times: pa.ChunkedArray  # as in the file: texts, or Parquet's times
    series: pa.ChunkedArray | None  # texts
    values_NV: NDArray[np.float64]  # NaN where the file has none
    place: Callable[[int], str]  # a row, counted from 0 -> such as "line 2"


def wanted(data: DataParams) -> Wanted:
    """The columns that the settings name."""
    return Wanted(data.time, data.series, [*data.targets, *data.covariates])


def mistake(where: str, place: str, column: str, words: str) -> UserError:
    """The error that a row of a table is wrong in a column."""
    return UserError(f"{where}, {place}, column {column!r}: {words}")


def check_columns(where: str, held: Sequence[str], columns: Wanted) -> None:
    """Raises UserError when the file lacks a column that the settings name, or has it more than once."""
    keys = {columns.time: "data.time", **({columns.series: "data.series"} if columns.series else {})}
    for name in columns.names:
        key = keys.get(name, "data.targets and data.covariates")
        count = list(held).count(name)
        if count > 1:
            raise UserError(
                f"{where}: {count} columns are called {name!r}, which {key} names; rename all but one of them"
            )
        if count == 0:
            close = difflib.get_close_matches(name, held, n=1, cutoff=0.5)
            shown = ", ".join(map(repr, held[:20])) + (", ..." if len(held) > 20 else "")
            hint = f"did you mean {close[0]!r}?" if close else f"the columns are {shown}"
            raise UserError(f"{where}: no column is called {name!r}, which {key} names; {hint}")


def check_size(where: str, rows: int, columns: Wanted) -> None:
    """Raises UserError when a table takes too much memory."""
    if rows * len(columns.names) > MOST_VALUES:
        raise UserError(
            f"{where} has {rows} rows or more, and data.targets, data.covariates, data.series and data.time name"
            f" {len(columns.names)} columns; {MOST_VALUES:,} values are the most that is read: name fewer columns, or give"
            " fewer rows"
        )


def check_finite(table: Table, columns: Wanted) -> None:
    """Raises UserError when a value is infinite, or too large for the network's 32 bits."""
    for number, name in enumerate(columns.variables):
        wrong_N = np.abs(table.values_NV[:, number]) > 1e30
        if wrong_N.any():
            row = int(np.argmax(wrong_N))
            value = table.values_NV[row, number]
            raise mistake(
                table.where,
                table.place(row),
                name,
                f"{value:g} is no finite number below 1e30; correct it, or leave it empty if it is not known",
            )
