"""Turns the bytes of a request into the last rows of one or more tables, or says what is wrong with them.

A table may be longer than the network looks back. The rows before are counted and not read, so that they cost next to
nothing and may have gaps. Every row costs memory for itself alone.
"""

from __future__ import annotations

import csv
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from serving.errors import RequestError
from serving.forms import FORM, JSON, media_type, read_parts

CSV = b"text/csv"
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
_CELL_BYTES = 1000  # per column: what a line may have on average
# Lists and objects of a JSON body. It takes up to 10 ms to read so many, and no other Python code runs meanwhile.
_MOST_ROWS = 100_000
_RETURNS = bytes.maketrans(b"\r", b"\n")
_LARGEST = float(np.finfo(np.float32).max)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Columns:
    """The columns that a table must have, in any order, and how many of its rows are read."""

    variables: tuple[str, ...]
    time: str  # may be missing
    rows: int

    def check(self, names: Sequence[str], began: str) -> None:
        """Raises RequestError unless these are all columns. ``began``: how the sentence begins."""
        given, own = set(names), {*self.variables, self.time}
        if missing := next((name for name in self.variables if name not in given), None):
            hint = "; commas separate columns" if len(names) == 1 and re.search(r"[;\t]", names[0]) else ""
            raise RequestError(422, f"{began} lacks the column {missing!r:.80}{hint}.")
        unknown = next((name for name in names if name not in own), None)
        if unknown is not None:
            known = ", ".join((*self.variables, f"{self.time} (where it has times)"))
            raise RequestError(
                422, f"{began} has the unknown column {unknown!r:.80}; leave out all but {known:.200}."
            )


@dataclass(frozen=True)
class Where:
    """Which table a sentence is about."""

    number: int
    several: bool
    header: int  # lines before the first row: 1 in a CSV, whose lines are told instead of rows

    def __call__(self, row: int | None = None, column: str | None = None) -> str:
        """``Series 2, row 7, column sales``. Rows are given from 1."""
        parts = [f"series {self.number}"] if self.several or row is None else []
        parts += [f"{'line' if self.header else 'row'} {row + self.header}"] if row is not None else []
        parts += [f"column {_named(column)}"] if column is not None else []
        text = ", ".join(parts) if self.several or row is not None else "the table"
        return text[0].upper() + text[1:]


@dataclass(frozen=True, eq=False)
class Table:
    """The last rows of a table."""

    values: NDArray[np.float32]  # (rows, variables)
    times: list[str] | None
    first: int  # the number of its first row
    where: Where


def read_tables(content_type: str, body: bytes | bytearray, columns: Columns, most: int) -> list[Table]:
    """Returns the tables of a request, at most so many.

    Raises RequestError, with one sentence for the client, if anything is wrong with the request.
    """
    kind, options = media_type(content_type)
    if kind == JSON:
        series = _json_series(body, columns, most)
        return [_from_rows(rows, columns, where) for rows, where in _numbered(series, 0)]
    if kind == CSV:
        if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
            raise RequestError(415, "The CSV must be UTF-8.")
        files = [bytes(body)]
    elif kind == FORM:
        files = read_parts(options.get(b"boundary", b""), body, most, "series")
    else:
        raise RequestError(
            415, "Send text/csv, multipart/form-data with CSV files, or application/json with rows."
        )
    if not files:
        raise RequestError(422, "The request holds no series.")
    return [_from_csv(content, columns, where) for content, where in _numbered(files, 1)]


def _numbered(series: Sequence[Any], header: int) -> Iterator[tuple[Any, Where]]:
    return ((one, Where(number, len(series) > 1, header)) for number, one in enumerate(series, 1))


def _json_series(body: bytes | bytearray, columns: Columns, most: int) -> list[list[Any]]:
    if body.count(b"{") + body.count(b"[") > _MOST_ROWS:
        raise RequestError(
            413, f"The JSON holds too many rows: {_MOST_ROWS:,} at most; the last {columns.rows:,} are read."
        )
    try:
        content = from_json(body)
    except ValueError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from None
    match content:
        case {"rows": list() as rows, **others} if not others:
            return [rows]
        case {"series": list() as series, **others} if not others and all(
            type(rows) is list for rows in series
        ):
            if len(series) > most:
                raise RequestError(413, f"Too many series: a request may hold {most}.")
            if not series:
                raise RequestError(422, "The request holds no series.")
            return series
    example = f"{{{json.dumps(columns.variables[0])[:80]}: 1.5, ...}}"
    raise RequestError(
        422,
        f'JSON must be {{"rows": [{example}, ...]}}, or {{"series": [rows, rows, ...]}}, and nothing else.',
    )


def _enough(rows: int, columns: Columns, where: Where) -> None:
    if rows < columns.rows:
        raise RequestError(
            422,
            f"{where()} has {rows:,} row{'' if rows == 1 else 's'}; the network needs the last {columns.rows:,}.",
        )


def _from_rows(rows: list[Any], columns: Columns, where: Where) -> Table:
    _enough(len(rows), columns, where)
    first = len(rows) - columns.rows + 1
    last = rows[-columns.rows :]
    timed = isinstance(last[0], dict) and columns.time in last[0]
    names = (*columns.variables, *((columns.time,) if timed else ()))
    expected = set(names)
    values, times = np.empty((columns.rows, len(columns.variables)), np.float32), []
    for number, row in enumerate(last):
        if type(row) is not dict:
            raise RequestError(
                422, f"{where(first + number)} must be an object with a number for every column."
            )
        if row.keys() != expected:
            _explain(row, columns, timed, where(first + number))
        values[number] = [
            _number(row[name], name, where, first + number, _of_json) for name in columns.variables
        ]
        if timed:
            if type(row[columns.time]) is not str:
                place = where(first + number, columns.time)
                raise RequestError(
                    422, f'{place} must be a time such as "2026-01-31T14:00", got {row[columns.time]!r:.50}.'
                )
            times.append(row[columns.time])
    return Table(values, times if timed else None, first, where)


def _explain(row: Mapping[str, Any], columns: Columns, timed: bool, began: str) -> None:
    columns.check(list(row), began)
    raise RequestError(422, f"{began} {'lacks' if timed else 'has'} a time, unlike the row before.")


def _from_csv(content: bytes, columns: Columns, where: Where) -> Table:
    if b"\n" not in content:
        content = content.translate(_RETURNS)  # a tenth of the time of replace
    content = content.rstrip(b"\r\n\t ")
    end = content.find(b"\n")
    line = (content if end < 0 else content[:end]).removeprefix(BOM_UTF8)
    header = [name.strip() for name in _cells(line, columns, f"{where()}: the header")]
    if len(places := {name: place for place, name in enumerate(header)}) < len(header):
        doubled = next(name for place, name in enumerate(header) if places[name] != place)
        raise RequestError(422, f"{where()} has the column {doubled!r:.80} twice.")
    columns.check(header, where())
    rows = content.count(b"\n")
    _enough(rows, columns, where)
    first = rows - columns.rows + 1
    start = len(content)
    for _ in range(columns.rows):
        start = content.rfind(b"\n", 0, start)
    picks = [places[name] for name in columns.variables]
    time = places.get(columns.time)
    values, times = np.empty((columns.rows, len(picks)), np.float32), []
    for number in range(columns.rows):
        start, end = start + 1, content.find(b"\n", start + 1)
        row = first + number
        cells = _cells(content[start : end if end >= 0 else None], columns, where(row))
        start = end
        if len(cells) != len(header):
            raise RequestError(
                422,
                f"{where(row)} has {len(cells)} cell{'' if len(cells) == 1 else 's'}; the header has {len(header)}.",
            )
        values[number] = [_number(cells[pick], header[pick], where, row, _of_text) for pick in picks]
        if time is not None:
            times.append(cells[time].strip())
    return Table(values, None if time is None else times, first, where)


def _cells(line: bytes, columns: Columns, began: str) -> list[str]:
    """The cells of one line. ``began``: how a sentence about it begins."""
    most = _CELL_BYTES * (len(columns.variables) + 1)
    if len(line) > most:
        raise RequestError(422, f"{began} has more than {most:,} bytes.")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise RequestError(422, f"{began} is not UTF-8 text; save the table as CSV in UTF-8.") from None
    if '"' not in text:
        return text.rstrip("\r").split(",")
    try:
        (cells,) = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        raise RequestError(
            422, f"{began} has a quotation mark out of place, or one that does not end on its line."
        ) from None
    return cells


def _number(cell: Any, column: str, where: Where, row: int, convert: Callable[[Any], float]) -> float:
    """The number in a cell. Raises RequestError if float32 cannot hold it."""
    try:
        number = convert(cell)
    except ValueError as error:
        raise RequestError(422, f"{where(row, column)} {error}.") from None
    except OverflowError:
        number = float("inf")
    if abs(number) <= _LARGEST:
        return number
    what = "is too large" if number == number else "must be a number, got NaN"
    raise RequestError(422, f"{where(row, column)} {what}.")


def _of_json(cell: Any) -> float:
    if type(cell) not in (int, float):
        raise ValueError(f"must be a number, got {cell!r:.50}")
    return float(cell)


def _of_text(cell: str) -> float:
    text = cell.strip()
    if not _NUMBER.fullmatch(text):
        raise ValueError(
            f"must be a number, got {text!r:.50}" if text else "is empty; every row needs every number"
        )
    return float(text)


def _named(column: str) -> str:
    """A column's name in a sentence, which has one line."""
    return f"{column:.80}" if column.isprintable() else f"{column!r:.80}"
