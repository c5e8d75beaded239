"""`python -m benchmarks.recipe` trains what is missing, and its table has what was trained."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recipe
from models.images.recipes import modern


def test_each_training_is_one_line_and_none_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = np.random.default_rng(0)
    arrays = {}
    for part, count in {"train": 90, "test": 20}.items():
        arrays[f"{part}_images"] = source.integers(0, 256, (count, 16, 16, 3), np.uint8)
        arrays[f"{part}_labels"] = source.integers(0, 3, (count, 1), np.uint8)
    np.savez(tmp_path / "own.npz", allow_pickle=False, **arrays)
    monkeypatch.setattr(recipe, "RESULTS", tmp_path / "recipe.jsonl")
    size = ["--side", "8", "--images", "72", "--epochs", "1"]
    for cases in (["darts"], ["darts", "modern"]):
        monkeypatch.setattr(sys, "argv", ["recipe", str(tmp_path / "own.npz"), *size, "--cases", *cases])
        assert recipe.main() == 0
    lines = [json.loads(line) for line in (tmp_path / "recipe.jsonl").read_text().splitlines()]
    assert [line["case"] for line in lines] == ["darts", "modern"]
    assert lines[1]["recipe"] == asdict(modern(1))
    table = capsys.readouterr().out.splitlines()
    assert f"| 8 | 72 | 1 | modern | 1 | {100 * lines[1]['test_accuracy']:.2f} |" in table
