"""Finds the user's table, or the series that comes with the program, and reads its columns."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from stages.errors import UserError
from stages.sequences.params import DataParams
from stages.sequences.prepare.csv_file import read_csv
from stages.sequences.prepare.parquet_file import read_parquet
from stages.sequences.prepare.table import Table, check_finite, wanted

_PACKAGE, _FILE = "autots", "autots/datasets/data/traffic_hourly.zip"
_CSV, _PARQUET = (".csv", ".tsv", ".txt"), (".parquet", ".pq")


def read_table(data: DataParams) -> Table:
    """The columns that the settings name. Raises UserError."""
    columns = wanted(data)
    if data.name == "traffic":
        table = read_csv(_traffic(), "data.name traffic", columns)
    else:
        path = the_file(data)
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
        if suffixes[-1:] and suffixes[-1] in _PARQUET:
            table = read_parquet(path, data.root, columns)
        elif _is_csv(suffixes):
            table = read_csv(path, data.root, columns)
        else:
            raise UserError(
                f"data.root is {data.root}, which ends in none of .csv, .csv.gz, .zip and .parquet; save the table as one of"
                " these"
            )
    check_finite(table, columns)
    return table


def the_file(data: DataParams) -> Path:
    """The user's file. Raises UserError when there is none."""
    path = Path(data.root)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not there"
        raise UserError(
            f"data.root is {data.root}, which is {kind}; for data.name {data.name} it should be the file with your data"
        )
    return path


def _is_csv(suffixes: list[str]) -> bool:
    if not suffixes:
        return False
    if suffixes[-1] == ".gz":
        return suffixes[0] in _CSV
    return suffixes[-1] in (*_CSV, ".zip")


def _traffic() -> Path:
    """The file of hourly traffic in the package autots, whose code is never imported."""
    try:
        path = Path(str(distribution(_PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise UserError(
            f"data.name is traffic, but the package {_PACKAGE}, which holds its file, is not installed as requirements.lock has it;"
            " `make repro` installs it; or name a file of your own with data.name csv and data.root"
        )
    return path
