"""Tables are read from every kind of file alike, and a mistake in one is a line that names row, column and remedy."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.sequences.prepare import csv_file, table
from tests.stages.sequences.making import hourly, prepared, refusal, waves
from tests.stages.sequences.making import table as csv_of

GOOD = csv_of(hourly(40), waves(40))
LINES = GOOD.splitlines()


def changed(line: int, text: str) -> str:
    """The good table with another text on a line, counted from 1."""
    return "\n".join([*LINES[: line - 1], text, *LINES[line:]]) + "\n"


WRONG: list[tuple[str | bytes, str]] = [
    (changed(7, "2026-01-01 05:00:00,abc"), "table.csv, line 7, column 'y': 'abc' is no number; correct it"),
    (changed(7, '2026-01-01 05:00:00,"1,5"'), "line 7, column 'y': '1,5' is no number; write a decimal point"),
    (changed(7, "2026-01-01 05:00:00,1_000"), "line 7, column 'y': '1_000' is no number"),
    (changed(7, "2026-01-01 05:00:00,true"), "line 7, column 'y': 'true' is no number"),
    (changed(7, "2026-01-01 05:00:00,inf"), "line 7, column 'y': inf is no finite number below 1e30"),
    (changed(7, "2026-01-01 05:00:00,-1e999"), "line 7, column 'y': -inf is no finite number"),
    (changed(7, "2026-01-01 05:00:00"), "line 7: there are 1 fields, but the header has 2"),
    (changed(7, "2026-01-01 05:00:00,1,2"), "line 7: there are 3 fields, but the header has 2"),
    (changed(7, "05.01.2026,1"), "line 7, column 'time': '05.01.2026' is no time of ISO 8601"),
    (changed(7, ",1"), "line 7, column 'time': there is no time; add it, or delete the row"),
    (changed(7, "2026-13-01 05:00:00,1"), "line 7, column 'time': '2026-13-01 05:00:00' is no time"),
    (changed(7, "2026-01-01 05:00:00.5,1"), "line 7, column 'time': '2026-01-01 05:00:00.5' is no whole second"),
    (changed(7, "2026-01-01 05:00:00Z,1"), "line 2, column 'time': .* has no offset from UTC, but '2026-01-01 05:00:00Z' .line 7. has"),
    (changed(7, "2026-01-01 04:00:00,1"), "line 7, column 'time': '2026-01-01 04:00:00' is there twice, first in line 6"),
    (changed(7, "2026-01-01 03:30:00,1"), "line 7, column 'time': '2026-01-01 03:30:00' comes after .* sort the rows by time"),
    (changed(7, "2026-01-01 05:30:00,1"), "line 7, column 'time': the row comes 90 minutes after the one before, but most rows come after 1 hour"),
    (GOOD + "2026-01-03 12:00:00,1\n", "line 42, column 'time': 20 rows are missing before this one, more than data.longest_gap .2."),
    ("\n".join([LINES[0], *(f"{time},1" for time in hourly(40))]), "column 'y' is 1 in all training rows; there is nothing to forecast"),
    ("\n".join(["time,y", *(f"{time}," for time in hourly(40))]), "line 2, column 'y': 40 values are missing from here on"),
    ("", "table.csv is empty; give a table with a header and rows"),
    ("\n \n", "table.csv is empty"),
    ("time,y\n", "table.csv has no rows below its header"),
    ("time,Y\n2026-01-01,1\n", "no column is called 'y', which data.targets and data.covariates names; did you mean 'Y'|the columns are 'time', 'Y'"),
    ("Time,y\n2026-01-01,1\n", "no column is called 'time', which data.time names; did you mean 'Time'?"),
    ("time,y,y\n2026-01-01,1,2\n", "2 columns are called 'y'.*; rename all but one of them"),
    (GOOD.encode("utf-16"), "table.csv is UTF-16; save it as UTF-8"),
    (changed(7, "2026-01-01 05:00:00,ä").encode("latin-1"), "line 7, column 'y': these bytes are no UTF-8"),
    ("tïme,y\n2026,1\n".encode("latin-1"), "no column is called 'time'"),
    (b"PK\x03\x04 rest", "is a ZIP archive or an Excel workbook; save the table as CSV"),
    (b"\x1f\x8b rest", "is compressed with gzip; give its name the ending .csv.gz"),
    ("\n".join(LINES[:8]), "the training part .60% of the time. has 4 rows, but data.lookback .4. and data.horizon .2. need 6"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    line = refusal(tmp_path, content)
    assert re.search(said, line), line


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    """Empty lines and line breaks within quotes count."""
    rows = [f'{time},{value},"a\nb"' for time, value in zip(hourly(40), waves(40), strict=True)]
    rows[10] = rows[10].replace(",", ",x", 1)
    text = "\n".join(["time,y,note", "", *rows])
    line = text[: text.index(",x")].count("\n") + 1
    assert f"line {line}, column 'y'" in refusal(tmp_path, text)
    text = text.replace(",x", ",").replace("2026-01-01 12", "2026-01-01 11")
    line = text[: text.rindex("2026-01-01 11")].count("\n") + 1
    assert f"line {line}, column 'time'" in refusal(tmp_path, text)


def test_every_kind_of_file_is_read_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame({"time": pd.to_datetime(hourly(60)), "y": waves(60), "z": waves(60, 1)})
    frame.loc[5, "z"] = np.nan
    made = {".csv": tmp_path / "a.csv", ".tsv": tmp_path / "a.tsv", ".parquet": tmp_path / "a.parquet"}
    frame.to_csv(made[".csv"], index=False)
    frame.to_csv(made[".tsv"], index=False, sep="\t")
    frame.to_csv(tmp_path / "semicolon.csv", index=False, sep=";", na_rep="NA", lineterminator="\r\n")
    frame.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig", na_rep="?")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(made[".csv"].read_bytes()))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(made[".csv"], "inside.csv")
    frame.to_parquet(made[".parquet"], index=False)
    frame.assign(time=frame["time"].astype(str)).to_parquet(tmp_path / "texts.parquet", index=False)
    frame.assign(time=frame["time"].dt.tz_localize("UTC")).to_parquet(tmp_path / "zoned.parquet", index=False)
    files = sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert len(files) == 9
    results = [prepared(tmp_path, file, covariates=["z"]) for file in files]
    values = frame[["y", "z"]].interpolate().to_numpy(np.float32)
    times = frame["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    for file, result in zip(files, results, strict=True):
        np.testing.assert_array_equal(result["values"], values, file.name)
        np.testing.assert_array_equal(result["times"], times, file.name)
        assert result.card == results[0].card
        assert result.card.filled == {"z": 1}


def test_a_wrong_parquet_file_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"time": pd.to_datetime(hourly(40)), "y": waves(40), "text": ["a"] * 40})

    def line(frame: pd.DataFrame | bytes, **changes: Any) -> str:
        path = tmp_path / "table.parquet"
        if isinstance(frame, bytes):
            path.write_bytes(frame)
        else:
            frame.to_parquet(path, index=False)
        return refusal(tmp_path, path, **changes)

    assert "cannot be read as Parquet" in line(b"time,y\n1,2\n")
    assert "cannot be read as Parquet" in line(b"")
    assert "no column is called 'z'" in line(frame, targets=["z"])
    assert "column 'text' has the type large_string, which is no number" in line(frame, targets=["text"])
    assert "column 'y' has the type double; data.time needs times" in line(frame, time="y", targets=["time"])
    assert "row 3, column 'time': '2026-01-01 01:00:00' is there twice, first in row 2" in line(
        pd.concat([frame.iloc[[0, 1]], frame.iloc[1:]])
    )
    assert "row 1, column 'y': inf is no finite number" in line(frame.assign(y=[np.inf, *waves(39)]))
    assert "has no rows" in line(frame.iloc[:0])


def test_a_file_that_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "which is a folder; for data.name csv" in refusal(tmp_path, tmp_path)
    assert "which is not there" in refusal(tmp_path, tmp_path / "nothing.csv")
    assert "ends in none of .csv" in refusal(tmp_path, GOOD, "table.xlsx")
    assert "is damaged" in refusal(tmp_path, b"no gzip", "table.csv.gz")
    assert "is damaged" in refusal(tmp_path, gzip.compress(GOOD.encode())[:-20], "table.csv.gz")
    assert "is damaged" in refusal(tmp_path, b"no zip", "table.zip")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", GOOD)
        archive.writestr("b.csv", GOOD)
    assert "holds 2 files; it should hold one" in refusal(tmp_path, tmp_path / "two.zip")


def test_a_table_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_VALUES", 60)
    assert "name 2 columns; 60 values are the most that is read" in refusal(tmp_path, GOOD)
    monkeypatch.setattr(csv_file, "_BLOCK", 64)
    assert "the most that is read" in refusal(tmp_path, GOOD), "while it is read"


def test_values_that_32_bits_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    large = [1e9 + value for value in waves(40)]
    assert "column 'y': values near 1e+09 vary by" in refusal(tmp_path, csv_of(hourly(40), large))
