"""Reads a table of trained cells (search.benchmark_table), in which the search looks up the cells it finds."""

from __future__ import annotations

from pathlib import Path

from models.images.benchmark import Benchmark
from stages.errors import UserError
from stages.images.params import SearchParams
from stages.plumbing.files import read_table, sha256_of


def read_benchmark(config: SearchParams) -> tuple[Benchmark | None, str]:
    """The table of search.benchmark_table and its hash. Raises UserError when the table cannot be read."""
    if config.benchmark_table is None:
        return None, ""
    path = Path(config.benchmark_table).expanduser()
    rows = read_table(path, "search.benchmark_table")
    columns = [name for name in rows[0] if "acc" in name] if rows else []
    if not columns or "arch_str" not in rows[0]:
        raise UserError(
            f"{path} needs a column arch_str and a column with acc in its name; it has"
            f" {', '.join(rows[0]) if rows else 'no row'}"
        )
    try:
        return Benchmark({row["arch_str"]: float(row[columns[0]]) for row in rows}), sha256_of(path)
    except ValueError as error:
        raise UserError(
            f"{path}: column {columns[0]} holds something that is not a number ({error}); correct it"
        ) from None
