"""The benchmark of forecasts: its tables, its data sets, and what a run's identity depends on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import forecasting
from benchmarks.forecasting import Job, report, spread, written


def done(
    case: str, seed: int, found: float, lstm: float, dlinear: float, *random: float
) -> dict[str, object]:
    scores = {"found": found, "lstm": lstm, "dlinear": dlinear, "seasonal naive": 1.0}
    scores |= {f"random {number}": score for number, score in enumerate(random, start=1)}
    return {"case": case, "seed": seed, "test_mase": scores, "gap": 0.0, "best_epoch": 3}


def test_the_ratio_is_that_to_the_better_baseline() -> None:
    runs = [done("a", 0, 0.5, 0.4, 0.8, 0.6), done("a", 1, 0.7, 0.6, 0.8, 0.8), done("b", 0, 0.9, 2.0, 1.0)]
    text = report(runs[:2], {})
    assert (
        "| a | 2 | 0.600 ± 0.141 | 0.700 ± 0.141 | 0.500 ± 0.141 | 0.800 ± 0.000 | 1.000 ± 0.000 | 1.200 |"
        in text
    )
    assert "| a | 1 | 0.700 | 0.800 | 0.600 | 0.800 | 0.000 | 3 |" in text
    assert "| 0.900 |" in report([done("b", 0, 0.9, 2.0, 1.0, 1.0)], {})


def test_one_number_has_no_deviation() -> None:
    assert spread([0.5]) == "0.500"


def test_tables_have_every_hour_once_and_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["ts,y", *(f"2020-01-01 {hour:02}:00:00,{hour}" for hour in (0, 1, 1, 3, 4, 5))]
    (tmp_path / "hourly_electricity.csv").write_text("\n".join(lines))
    monkeypatch.setattr(forecasting, "ROWS", 5)
    path, targets, covariates = written("electricity", tmp_path, tmp_path)
    table = pd.read_csv(path)
    assert table["y"].tolist() == [1, 2, 3, 4, 5] and targets == ["y"] and covariates == []
    assert table["time"].tolist()[0] == "2020-01-01 01:00:00"


def test_a_run_is_known_by_settings_and_data_but_not_by_their_place(tmp_path: Path) -> None:
    for name in ("one.csv", "same.csv"):
        (tmp_path / name).write_text("time,y\n2020-01-01,1\n")
    (tmp_path / "other.csv").write_text("time,y\n2020-01-01,2\n")

    def key(name: str, **changes: object) -> str:
        settings = {"data.name": "csv", "data.root": str(tmp_path / name), **changes}
        return Job("a", forecasting._settings(settings), 1).key

    assert key("one.csv") == key("same.csv") != key("other.csv")
    assert key("one.csv") != key("one.csv", **{"search.seed": 1})
