"""A table of latencies from elsewhere is read, or refused in one line."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from models.images.genotype import to_json
from models.images.notations import arch_str
from models.images.spaces import search_space
from models.search.genotype import Genotype
from models.search.random_cells import random_cells
from stages.errors import UserError
from stages.images import architectures
from stages.latencies import Measurement
from stages.measuring import tables

ABOUT = {"space": "nasbench201", "size": {"cells": 3}, "precision": "float32", "batch_size": 1, "unit": "ms"}


def cells(space: str, count: int) -> list[Genotype]:
    drawn = random_cells(search_space(space), torch.Generator().manual_seed(0))
    return list(itertools.islice(drawn, count))


CELLS = cells("nasbench201", 60)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(*ms: float | str) -> list[dict[str, Any]]:
    return [{"arch_str": arch_str(cell), "ms": value} for cell, value in zip(CELLS, ms, strict=False)]


def read(path: Path, space: str = "nasbench201") -> tables.Table:
    return tables.read(path, search_space(space), ABOUT, architectures)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_with_arch_str(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [{"index": 0, **row, "1080ti_1": 7} for row in rows_of(3, 4.5, 1e1)])
    table = read(path)
    assert [row.ms for row in table.rows] == [3, 4.5, 10]
    assert [row.genotype for row in table.rows] == CELLS[:3]
    assert table.device == {} and not table.unit_stated and table.noise is None


def test_a_table_of_a_kit_says_what_it_was_measured_with(tmp_path: Path) -> None:
    says = {
        "space": "nasbench201", "size": json.dumps({"cells": 3}), "precision": "float32", "batch_size": "1",
        "unit": "ms", "device": "Linux aarch64", "processor": "Raspberry Pi 4", "governor": "ondemand", "threads": "1",
        "runtime": "onnxruntime 1.20.0", "kit": "abc",
    }  # fmt: skip
    measured = [(CELLS[0], 2.0), (CELLS[1], 5.0), (CELLS[0], 2.2)]
    rows = [
        {"genotype": json.dumps(to_json(cell)), "ms": ms, "ms_spread": 0.1, **says} for cell, ms in measured
    ]
    table = read(write(tmp_path / "pi.csv", rows))
    assert [row.ms for row in table.rows] == pytest.approx([2.1, 5.0])
    assert table.noise == pytest.approx(0.1)
    assert table.device["processor"] == "Raspberry Pi 4" and table.unit_stated


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"arch_str": "x", "pixel3": 3}], "needs a column ms and a column genotype or arch_str; it has arch_str, pixel3"),
        ([{"network": "x", "ms": 3}], "it has network, ms"),
        (rows_of(3, "fast"), "line 3 has 'fast' in column ms; it should be a number of milliseconds above 0"),
        (rows_of(3, 4, 0), "line 4 has '0' in column ms"),
        (rows_of(-1), "line 2 has '-1' in column ms"),
        (rows_of("nan"), "line 2 has 'nan' in column ms"),
        (rows_of("inf"), "line 2 has 'inf' in column ms"),
        (rows_of(""), "line 2 has '' in column ms"),
        ([*rows_of(3, 4), *rows_of(9)], "lines 2 and 4 are about the same architecture and contradict each other (3 and 9 ms)"),
        ([{"arch_str": "|conv~0|", "ms": 1}], "line 2 has no architecture in column arch_str"),
        ([{"genotype": "[1]", "ms": 1}], "line 2 has no architecture in column genotype"),
        ([{"genotype": "{", "ms": 1}], "line 2 has no architecture in column genotype"),
        ([{"genotype": json.dumps(to_json(cells("s5", 1)[0])), "ms": 1}], "that the space nasbench201 does not contain"),
        ([{**row, "unit": "s"} for row in rows_of(1)], "line 2 is about unit s, not ms"),
        ([{**row, "precision": "int8"} for row in rows_of(1)], "about precision int8, not float32"),
        ([{**row, "batch_size": 8} for row in rows_of(1)], "about batch_size 8, not 1"),
        ([{**row, "space": "s5"} for row in rows_of(1)], "about space s5, not nasbench201"),
        ([{**row, "size": '{"cells": 5}'} for row in rows_of(1)], 'about size {"cells": 5}, not {"cells": 3}'),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(write(tmp_path / "table.csv", rows))
    message = str(caught.value)
    assert words in message
    assert message.startswith("latency.measurements is ") and "table.csv" in message and "\n" not in message


def test_operations_that_a_reduced_space_lacks_are_another_space(tmp_path: Path) -> None:
    pools = next(cell for cell in cells("s5", 20) if "max_pool_3x3" in str(cell))
    path = write(tmp_path / "table.csv", [{"genotype": json.dumps(to_json(pools)), "ms": 1}])
    assert tables.read(path, search_space("s5"), {}, architectures).rows
    with pytest.raises(UserError, match="the space s2 does not contain"):
        tables.read(path, search_space("s2"), {}, architectures)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.csv").write_text("")
    for name, words in (
        ("binary.csv", "cannot be read"),
        ("empty.csv", "no row"),
        ("none.csv", "cannot be read"),
    ):
        with pytest.raises(UserError, match=words):
            read(tmp_path / name)


def table_of(ms: float, processor: str = "", *, count: int = 60, unit: bool = False) -> tables.Table:
    device = {"processor": processor} if processor else {}
    return tables.Table([Measurement(cell, ms) for cell in CELLS[:count]], device, unit, None)


def test_a_table_that_is_too_small() -> None:
    tables.check_size(Path("a.csv"), table_of(1), predictors=0)
    tables.check_size(Path("a.csv"), table_of(1, count=30), predictors=6)
    for count, predictors in ((49, 0), (19, 6)):
        with pytest.raises(UserError, match=f"has {count} architectures; it should have"):
            tables.check_size(Path("a.csv"), table_of(1, count=count), predictors)


@pytest.mark.parametrize(
    ("ms", "processor", "unit", "said"),
    [
        (1.0, "this", True, ""),
        (0.001, "this", True, "seconds"),
        (1000.0, "this", False, "microseconds"),
        (9.0, "", False, ""),  # another device, slower
        (900.0, "", False, ""),  # much slower
        (0.001, "", False, "add a column unit with ms if it is right"),
        (0.01, "other", False, "seconds"),
        (0.001, "other", True, ""),  # another device, whose kit has said that these are milliseconds
    ],
)
def test_seconds_are_told_from_milliseconds(ms: float, processor: str, unit: bool, said: str) -> None:
    probed: list[Genotype] = []

    def probe(genotype: Genotype) -> float:
        probed.append(genotype)
        return 1.1

    table = table_of(ms, processor, unit=unit)
    if said:
        with pytest.raises(UserError, match=said):
            tables.check_unit(Path("a.csv"), table, "this", probe)
    else:
        tables.check_unit(Path("a.csv"), table, "this", probe)
    assert len(probed) == (0 if unit and processor == "other" else 5)


def test_the_shared_table_is_read(shared: Path, tmp_path: Path) -> None:
    with gzip.open(shared / "benchmarks" / "nasbench201_latency_ms.csv.gz", "rt") as file:
        rows = [{"arch_str": row["arch_str"], "ms": row["pixel3"]} for row in csv.DictReader(file)]
    table = read(write(tmp_path / "pixel3.csv", rows))
    assert len(table.rows) == 15625
    tables.check_unit(tmp_path / "pixel3.csv", table, "this", lambda _: 1.0)
