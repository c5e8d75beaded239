"""The stage measure: instant without a budget, complete with one, resumed after a kill; and kits for other devices."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.errors import UserError
from stages.latencies import LatencyRecord, check_budget
from stages.measuring import bench
from stages.plumbing.files import LATENCY, LATENCY_JSON, PREDICTOR
from tests.stages.conftest import SMALL, TINY, write_params
from tests.stages.processes import environment
from tests.stages.test_bad_input import fails, fingerprint

RunStage = Callable[..., int]


def record() -> dict[str, Any]:
    return json.loads(LATENCY_JSON.read_text())


def test_without_a_budget_nothing_is_measured(
    small: Path, run_stage: RunStage, measurements: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(small / "params.yaml", TINY)
    assert run_stage("measure") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert record() == {} and [path.name for path in LATENCY.iterdir()] == ["latency.json"]
    before = LATENCY_JSON.stat().st_mtime_ns
    assert run_stage("measure") == 0
    assert LATENCY_JSON.stat().st_mtime_ns == before and measurements == []


def test_without_a_budget_neither_torch_nor_mlflow_is_imported(small: Path, store: str) -> None:
    write_params(small / "params.yaml", TINY)
    program = (
        "import sys; from stages.plumbing import runtime; from stages.measure import main\n"
        "assert runtime.run('measure', main) == 0\n"
        "print(sorted({'torch', 'mlflow', 'onnxruntime', 'matplotlib'} & set(sys.modules)))"
    )
    command, own = [sys.executable, "-c", program], environment(store)
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_it_measures_fits_and_says_with_what(
    small: Path, run_stage: RunStage, measurements: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_stage("measure") == 0
    about = record()
    assert sum(measurements) == 60 + 4
    assert about["samples"] == 60 and about["held_out"] == 10
    for name in ("device", "processor", "governor", "runtime", "identity", "kind"):
        assert about[name]
    wanted = {
        "unit": "ms", "precision": "float32", "batch_size": 1, "threads": 1, "space": "nasbench201",
        "origin": "measured here",
    }  # fmt: skip
    assert wanted.items() <= about.items()
    assert about["size"] == {"channels": 2, "cells": 1, "stages": 1, "image_shape": [8, 8, 1], "classes": 10}
    for part in (about, about["flops"], about["additive"], *about["cross_validation"].values()):
        assert part["mean_relative_error"] >= 0 and 0 <= part["within_10_percent"] <= 1
        assert -1 <= part["spearman"] <= 1 and -1 <= part["kendall_tau"] <= 1
    assert about["flops_spearman"] == about["flops"]["spearman"] and about["noise"] >= 0
    with (LATENCY / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["genotype"] for row in rows}) == 60 and sum(int(row["held_out"]) for row in rows) == 10
    assert all(0 < float(row["ms"]) < 1000 and float(row["ms_spread"]) >= 0 for row in rows)
    assert 0 <= about["fastest_ms"] <= min(float(row["ms"]) for row in rows) * 1.001
    assert (LATENCY / "predicted.png").stat().st_size > 1000
    assert not list((small / ".checkpoints" / "measure").glob("*/measurements.jsonl"))
    assert "Spearman" in capsys.readouterr().out
    # Again: known already, even with another budget; another size is measured anew.
    made, asked = fingerprint(small), len(measurements)
    write_params(
        small / "params.yaml", {**SMALL, "latency.budget_ms": 500, "search.epochs": 2, "latency.draws": 3}
    )
    assert run_stage("measure") == 0
    assert fingerprint(small) == made and len(measurements) == asked
    assert "are known already" in capsys.readouterr().out
    write_params(small / "params.yaml", {**SMALL, "retrain.channels": 3})
    assert run_stage("measure") == 0
    assert record()["size"]["channels"] == 3 and len(measurements) > asked


def test_it_continues_after_a_kill(
    small: Path, run_stage: RunStage, measurements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = bench.measured

    def killed(networks: Sequence[bytes], *rest: Any) -> Any:
        if sum(measurements) >= 24:
            raise KeyboardInterrupt
        return counted(networks, *rest)

    monkeypatch.setattr(bench, "measured", killed)
    with pytest.raises(KeyboardInterrupt):
        run_stage("measure")
    (journal,) = (small / ".checkpoints" / "measure").glob("*/measurements.jsonl")
    kept = {line["name"]: line["ms"] for line in map(json.loads, journal.read_text().splitlines())}
    assert len(kept) == sum(measurements) == 24 and not LATENCY.exists()
    monkeypatch.setattr(bench, "measured", counted)
    measurements.clear()
    assert run_stage("measure") == 0
    assert sum(measurements) == 60 + 4 - 24
    with (LATENCY / "measurements.csv").open() as file:
        found = {row["genotype"]: float(row["ms"]) for row in csv.DictReader(file)}
    assert {name: pytest.approx(found[name], rel=1e-4) for name in kept} == kept


def test_a_budget_below_the_fastest_network(
    small: Path, run_stage: RunStage, measurements: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(small / "params.yaml", {**SMALL, "latency.budget_ms": 1e-6})
    fails(
        run_stage,
        capsys,
        "measure",
        2,
        "latency.budget_ms is 1e-06",
        "the fastest network of the space nasbench201",
    )
    asked = len(measurements)
    fails(run_stage, capsys, "measure", 2, f"{record()['fastest_ms']:.3g} ms on this device")
    assert len(measurements) == asked, "what is known is not measured again"


def test_a_record_without_a_processor_refuses_too() -> None:
    about = LatencyRecord(space="s5", fastest_ms=2.0)
    check_budget(2.0, about)
    check_budget(None, about)
    with pytest.raises(UserError, match="takes 2 ms"):
        check_budget(1.9, about)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latency.budget_ms": 0}, "latency.budget_ms is 0"),
        ({"latency.budget_ms": -1}, "latency.budget_ms is -1"),
        ({"latency.budget_ms": "3 ms"}, "latency.budget_ms is '3 ms'"),
        ({"latency.precision": "int8"}, "latency.precision is 'int8'"),
        (
            {"latency.held_out": 40},
            "latency.samples is 60; it should be at least twice latency.held_out (40)",
        ),
        (
            {"latency.measurements": "missing.csv"},
            "latency.measurements is missing.csv, which cannot be read",
        ),
        ({"latency.predictors": ["missing.safetensors"]}, "latency.predictors has missing.safetensors"),
    ],
)
def test_wrong_settings(
    small: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    write_params(small / "params.yaml", {**SMALL, **change})
    fails(run_stage, capsys, "measure", 2, words)


def test_the_search_heeds_the_predictor(
    small: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(small / "params.yaml", {**SMALL, "search.epochs": 2})
    assert run_stage("prepare") == 0
    fails(run_stage, capsys, "search", 2, "predictor.safetensors is missing; `dvc repro measure` makes it")
    assert run_stage("measure") == run_stage("search") == 0
    with open("artifacts/search/history.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert 0 < float(last["latency_ms"]) < 1000 and float(last["latency_over_budget"]) == 0
    assert float(last["latency_multiplier"]) > 0
    write_params(small / "params.yaml", {**SMALL, "latency.budget_ms": 1e-6})
    fails(run_stage, capsys, "search", 2, "latency.budget_ms is 1e-06, but the fastest network")
    write_params(small / "params.yaml", SMALL)
    PREDICTOR.write_bytes(b"broken")
    fails(run_stage, capsys, "search", 2, "predictor.safetensors is damaged")
