"""The benchmark of growing reads its files, measures both searches, and reports what it has measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import sequences
from benchmarks._sequences_report import page


def test_a_file_of_series_is_read(tmp_path: Path) -> None:
    file = tmp_path / "two.ts"
    file.write_text("#comment\n@dimensions 2\n@data\n1,2,3:4,5,6:walking\n7,8,9:10,11,12:running\n")
    series = sequences.read_ts(file)
    assert series.tolist() == [[[1, 4], [2, 5], [3, 6]], [[7, 10], [8, 11], [9, 12]]]


def test_chunks_hold_their_steps_and_the_one_after_them() -> None:
    series = torch.arange(100.0)[None, :, None]
    assert [int(chunk[0, 0]) for chunk in sequences.chunked(series, 33)] == [0, 33, 66]
    assert sequences.chunked(series, 11)[1, :, 0].tolist() == list(range(11, 45))


@pytest.mark.parametrize("strategy", sequences.STRATEGIES)
def test_both_searches_are_measured(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EPOCHS": 3, "EVERY": 1, "HIDDEN": 4, "CHUNKS": 4}.items():
        monkeypatch.setattr(sequences, name, value)
    chunks = torch.randn(16, sequences.STEPS + 1, 2, generator=torch.Generator().manual_seed(0))
    programs = {
        name: sequences.search(chunks, chunks, strategy, 0, grows=name == "grown")
        for name in ("fixed", "grown")
    }
    found = sequences.in_turns(programs)
    assert {name: program.supernet.sizes()["nodes"] for name, program in programs.items()} == {  # pyright: ignore[reportCallIssue]
        "fixed": 4,
        "grown": 4,
    }
    assert all(math.isfinite(row["loss"]) and row["seconds"] > 0 for row in found.values())


def test_the_page_has_the_ratios() -> None:
    row: dict[str, Any] = {"fixed": {"loss": 0.5, "seconds": 10.0}, "grown": {"loss": 0.51, "seconds": 8.0}}
    text = page({"growth": {"persistence": 0.85, "machine": "a machine", "ms-darts": [row, row]}})
    assert "| ms-darts | 2 | 0.5000 | 0.5100 | 1.020 | 1.020 to 1.020 | 10.0 | 8.0 | 0.800 |" in text
