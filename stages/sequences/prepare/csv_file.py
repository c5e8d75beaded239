"""Reads the columns of a CSV file: plain, compressed (.gz), or alone in a .zip file.

pyarrow reads. When it finds a mistake, Python's csv module goes through the file again to tell its line, as an editor
counts lines, and its column.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv as reader

from stages.errors import UserError, of_system
from stages.sequences.prepare.table import Table, Wanted, check_columns, check_size, mistake

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "?")
_BLOCK = 2**22  # bytes that are read at once; no row may be longer
_DELIMITERS = (",", ";", "\t", "|")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_NOT_CSV = {
    b"PAR1": "is a Parquet file; give its name the ending .parquet",
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save the table as CSV",
    b"\x1f\x8b": "is compressed with gzip; give its name the ending .csv.gz",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
}


def read_csv(path: Path, where: str, columns: Wanted) -> Table:
    """Reads columns of a file, which messages call ``where``. Raises UserError for everything that is wrong in it."""
    try:
        delimiter, held = _header(path, where, columns)
        check_columns(where, held, columns)
        return _read(path, where, columns, delimiter)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        known = of_system(error, where) if isinstance(error, OSError) else None
        raise known or UserError(f"{where} is damaged ({error}); make it again") from None


def _read(path: Path, where: str, columns: Wanted, delimiter: str) -> Table:
    types = {name: pa.string() for name in columns.texts}
    types |= {name: pa.float64() for name in columns.variables}
    batches: list[pa.RecordBatch] = []
    rows = 0
    try:
        with (
            _opened(path, where) as file,
            reader.open_csv(
                file,
                read_options=reader.ReadOptions(block_size=_BLOCK),
                parse_options=reader.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=reader.ConvertOptions(
                    column_types=types,
                    include_columns=columns.names,
                    null_values=list(MISSING),
                    strings_can_be_null=True,
                ),
            ) as stream,
        ):
            for batch in stream:
                rows += batch.num_rows
                check_size(where, rows, columns)
                batches.append(batch)
    except pa.ArrowInvalid as error:
        raise _explained(path, where, columns, delimiter, error) from None
    if rows == 0:
        raise UserError(f"{where} has no rows below its header; give a table with rows")
    table = pa.Table.from_batches(batches)
    values_NV = np.empty((rows, len(columns.variables)))
    for number, name in enumerate(columns.variables):
        values_NV[:, number] = table.column(name).to_numpy()
    return Table(
        where,
        table.column(columns.time),
        table.column(columns.series) if columns.series is not None else None,
        values_NV,
        lambda row: f"line {_line(path, where, delimiter, row)}",
    )


@contextlib.contextmanager
def _opened(path: Path, where: str) -> Iterator[BinaryIO]:
    """The bytes of the CSV file itself."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as file:
            yield file  # pyright: ignore[reportReturnType]
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [
                member
                for member in archive.infolist()
                if not member.is_dir() and not member.filename.startswith("__MACOSX/")
            ]
            if len(members) != 1:
                raise UserError(f"{where} holds {len(members)} files; it should hold one, the CSV file")
            with archive.open(members[0]) as file:
                yield file  # pyright: ignore[reportReturnType]
    else:
        with path.open("rb") as file:
            yield file


def _header(path: Path, where: str, columns: Wanted) -> tuple[str, list[str]]:
    """The delimiter and the names of the columns."""
    with _opened(path, where) as file:
        start = file.read(4)
    if not start.strip():
        with _opened(path, where) as file:
            if not file.read(_BLOCK).strip():
                raise UserError(f"{where} is empty; give a table with a header and rows")
    for magic, words in _NOT_CSV.items():
        if start.startswith(magic):
            raise UserError(f"{where} {words}")
    found: list[tuple[int, str, list[str]]] = []
    for delimiter in _DELIMITERS:
        held = next(iter(_records(path, where, delimiter)))[1]
        if columns.time in held:
            return delimiter, held
        found.append((len(held), delimiter, held))
    _, delimiter, held = max(found, key=lambda each: each[0])
    return delimiter, held


def _records(path: Path, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record begins, and its fields; the header is the first one. Empty lines count as lines only."""
    with _opened(path, where) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines = csv.reader(text, delimiter=delimiter)
        begins = 1
        try:
            for fields in lines:
                if fields:
                    yield begins, fields
                begins = lines.line_num + 1
        except csv.Error as error:
            raise UserError(f"{where}, line {begins}: this is no CSV ({error}); correct the line") from None


def _line(path: Path, where: str, delimiter: str, row: int) -> int:
    """The line on which a row begins."""
    for number, (line, _) in enumerate(_records(path, where, delimiter)):
        if number == row + 1:
            return line
    raise AssertionError(f"{where} has no row {row}")


def _explained(path: Path, where: str, columns: Wanted, delimiter: str, error: pa.ArrowInvalid) -> UserError:
    """What pyarrow has found, with line and column."""
    records = _records(path, where, delimiter)
    _, held = next(records)
    places = {name: held.index(name) for name in columns.names}
    for line, fields in records:
        if wrong := _wrong(fields, held, places, columns.variables):
            column, words = wrong
            if column is None:
                return UserError(f"{where}, line {line}: {words}")
            return mistake(where, f"line {line}", column, words)
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{where} cannot be read as CSV ({reason}); correct it")


def _wrong(
    fields: Sequence[str], held: Sequence[str], places: dict[str, int], variables: Sequence[str]
) -> tuple[str | None, str] | None:
    """The column and what is wrong with it in one record; None where nothing is. Where the whole record is, no column."""
    if len(fields) != len(held):
        return None, (
            f"there are {len(fields)} fields, but the header has {len(held)}; correct the line, and put quotes around values"
            " that hold the delimiter"
        )
    for name, place in places.items():
        value = fields[place]
        if any("\udc80" <= character <= "\udcff" for character in value):
            return name, "these bytes are no UTF-8; save the file as UTF-8"
        if name in variables and value not in MISSING and not _NUMBER.fullmatch(value):
            if value.strip().lower().lstrip("+-") in ("inf", "infinity"):
                continue  # is a number to pyarrow, and refused later
            comma = "; write a decimal point" if re.fullmatch(r"[+-]?\d+,\d+", value.strip()) else ""
            what = f"{value[:40]!r} is no number"
            return name, what + (
                comma or "; correct it, leave it empty if it is not known, or name another column"
            )
    return None
