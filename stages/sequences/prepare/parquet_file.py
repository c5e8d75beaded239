"""Reads the columns of a Parquet file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from stages.errors import UserError, of_system
from stages.sequences.prepare.table import Table, Wanted, check_columns, check_size


def read_parquet(path: Path, where: str, columns: Wanted) -> Table:
    """Reads columns of a file, which messages call ``where``. Raises UserError for everything that is wrong in it."""
    try:
        file = parquet.ParquetFile(path)
        check_columns(where, file.schema_arrow.names, columns)
        check_size(where, file.metadata.num_rows, columns)
        table = file.read(columns.names)
    except (pa.ArrowException, OSError) as error:
        known = of_system(error, where) if isinstance(error, OSError) else None
        reason = " ".join(str(error).split())[:200]
        raise known or UserError(
            f"{where} cannot be read as Parquet ({reason}); make it again, or give a CSV file the ending .csv"
        ) from None
    if table.num_rows == 0:
        raise UserError(f"{where} has no rows; give a table with rows")
    return Table(
        where,
        _times(table, where, columns.time),
        table.column(columns.series).cast(pa.string()) if columns.series is not None else None,
        _values_NV(table, where, columns),
        lambda row: f"row {row + 1}",
    )


def _times(table: pa.Table, where: str, name: str) -> pa.ChunkedArray:
    column = table.column(name)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_string(kind)):
        raise UserError(
            f"{where}, column {name!r} has the type {kind}; data.time needs times, dates or texts, so name another column"
        )
    return column


def _values_NV(table: pa.Table, where: str, columns: Wanted) -> np.ndarray:
    values_NV = np.empty((table.num_rows, len(columns.variables)))
    for number, name in enumerate(columns.variables):
        column = table.column(name)
        if not (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_decimal(column.type)
            or pa.types.is_boolean(column.type)
        ):
            raise UserError(
                f"{where}, column {name!r} has the type {column.type}, which is no number; convert it, or name another column"
            )
        as_numbers = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        values_NV[:, number] = as_numbers.cast(pa.float64(), safe=False).to_numpy()
    return values_NV
