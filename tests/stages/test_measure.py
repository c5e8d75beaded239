"""The stage measure: instant without a budget, complete with one, resumed after a kill; and kits for other devices."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stages.errors import UserError
from stages.images.data import ImageCard
from stages.images.params import METRIC
from stages.latencies import LatencyRecord, check_budget
from stages.measuring import bench
from stages.plumbing.files import LATENCY, LATENCY_JSON, PREDICTOR
from tests.stages.conftest import TINY, write_params
from tests.stages.processes import environment
from tests.stages.test_bad_input import fails, fingerprint

RunStage = Callable[..., int]
SMALL = {
    **TINY,
    "search.space": "nasbench201",
    "search.cells": 1,
    "retrain.cells": 1,
    "search.stages": 1,
    "retrain.stages": 1,
    "latency.budget_ms": 1000,
    "latency.samples": 60,
    "latency.held_out": 10,
    "latency.repeated": 4,
    "latency.rounds": 2,
    "latency.repeats": 2,
    "latency.warmup": 0,
}


@pytest.fixture
def small(project: Path) -> Path:
    """A project whose networks are the smallest there are. Of its data, there is only what measuring needs."""
    (project / "artifacts" / "data").mkdir(parents=True)
    card = ImageCard(
        name="digits", counts={"train": 8, "val": 8, "test": 8}, sha256="0", image_shape=(8, 8, 1), mean=[0.3],
        std=[0.4], mirror=False, classes=[str(number) for number in range(10)],
    )  # fmt: skip
    card.write(project / "artifacts" / "data" / "data.json", METRIC)
    write_params(project / "params.yaml", SMALL)
    return project


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each call has measured."""
    calls: list[int] = []
    original = bench.measured

    def measured(networks: Sequence[bytes], *rest: Any) -> Any:
        calls.append(len(networks))
        return original(networks, *rest)

    monkeypatch.setattr(bench, "measured", measured)
    return calls


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
    assert surveyed(measurements) == 60 + 4
    assert about["samples"] == 60 and about["held_out"] == 10
    for name in ("device", "processor", "governor", "runtime", "identity", "kind", "fastest"):
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
    assert about["fastest_ms"] <= min(float(row["ms"]) for row in rows) * 1.001
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


def surveyed(measurements: Sequence[int]) -> int:
    """How many networks were measured, without those at the end, one at a time, that might be the fastest."""
    singles = len(list(itertools.takewhile(lambda count: count == 1, reversed(measurements))))
    assert 1 <= singles <= 5
    return sum(measurements[:-singles])


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
    assert surveyed(measurements) == 60 + 4 - 24
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
    fails(run_stage, capsys, "search", 2, "latency.budget_ms is 1e-06")


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
    PREDICTOR.write_bytes(b"broken")
    fails(run_stage, capsys, "search", 2, "predictor.safetensors is damaged")


# Kits


@pytest.fixture
def kit(small: Path, run_stage: RunStage) -> Path:
    assert pack(run_stage, "device.zip") == 0
    return small / "device.zip"


def pack(run_stage: RunStage, *out: str) -> int:
    from stages import measure
    from stages.plumbing import runtime

    arguments, sys.argv = sys.argv, ["stages.measure", "kit", *out]
    try:
        return runtime.run("measure", measure.kit, command="", out="")
    finally:
        sys.argv = arguments


def on_device(kit: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a kit as a user does on a device, which has neither the project nor its folder."""
    command = [sys.executable, "-I", str(kit), *arguments]
    return subprocess.run(command, cwd=kit.parent, capture_output=True, text=True, check=False)


def test_a_kit_measures_elsewhere_and_its_table_is_taken(
    kit: Path,
    small: Path,
    run_stage: RunStage,
    tmp_path_factory: pytest.TempPathFactory,
    measurements: list[int],
) -> None:
    device = tmp_path_factory.mktemp("device") / kit.name
    shutil.copy(kit, device)
    done = on_device(device, "pi.csv")
    assert done.returncode == 0, done.stderr
    assert "64 of 64 networks, 0:00 left" in done.stdout
    table = device.parent / "pi.csv"
    whole = table.read_bytes()
    # Killed while it wrote: the torn line goes, the others stay.
    lines = whole.splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:33]) + lines[33][:20])
    assert on_device(device, "pi.csv").returncode == 0
    again = table.read_bytes().splitlines(keepends=True)
    assert again[:33] == lines[:33] and len(again) == len(lines) == 65
    # Another processor, so that its numbers are believed.
    table.write_text(table.read_text().replace(bench.described(1)["processor"], "Raspberry Pi 4"))
    write_params(small / "params.yaml", {**SMALL, "latency.measurements": str(table)})
    assert run_stage("measure") == 0
    about = record()
    assert about["origin"] == "pi.csv" and about["processor"] == "Raspberry Pi 4" and about["threads"] == 1
    assert about["samples"] == 60 and about["held_out"] == 10 and about["noise"] >= 0
    assert measurements == [], "nothing is measured here"
    refused = on_device(device, "pi.csv")
    assert refused.returncode == 2 and "give another name for the result" in refused.stderr


def test_equal_kits_are_equal_bytes_and_small(kit: Path, run_stage: RunStage) -> None:
    before = kit.read_bytes()
    assert pack(run_stage, "device.zip") == 0
    assert kit.read_bytes() == before
    with zipfile.ZipFile(kit) as packed:
        names = packed.namelist()
        manifest = json.loads(packed.read("manifest.json"))
    assert len([name for name in names if name.endswith(".onnx")]) == 60
    assert len(manifest["networks"]) == 64 and {"__main__.py", "manifest.json"} <= set(names)
    assert len(before) < 60 * 20_000


def test_a_runtime_that_is_too_old_for_a_kit(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["probabilities"])],
        "future",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
    )
    newer_opset = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 99)], ir_version=10)
    newer_format = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=99)
    for model in (newer_opset, newer_format):
        folder = tmp_path / str(model.ir_version)
        (folder / "networks").mkdir(parents=True)
        shutil.copy(bench.__file__, folder / "__main__.py")
        onnx.save(model, folder / "networks" / "0.onnx")
        manifest = {
            "space": "s5", "size": "{}", "precision": "float32", "batch_size": 1, "unit": "ms", "threads": 1,
            "repeats": 1, "warmup": 0, "kit": "abc", "networks": [{"file": "0.onnx", "genotype": {}}],
            "inputs": {"image": {"shape": [2], "type": "float32", "below": 2}},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        done = on_device(folder)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: onnxruntime") and done.stderr.count("\n") == 1
        assert "is too old for these networks" in done.stderr and "export.opset" in done.stderr


@pytest.mark.parametrize("out", [(), ("kit.tar",), ("nowhere/kit.zip",)])
def test_a_kit_needs_a_place(
    small: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], out: tuple[str, ...]
) -> None:
    assert pack(run_stage, *out) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_networks_of_a_kit_answer_like_networks(kit: Path) -> None:
    """Made-up weights neither overflow nor vanish, which would change how long the processor takes."""
    with zipfile.ZipFile(kit) as packed:
        feed = bench.feed_of(json.loads(packed.read("manifest.json"))["inputs"], 3)
        for name in [name for name in packed.namelist() if name.endswith(".onnx")][:10]:
            answer = bench.session_of(packed.read(name), 1).run(None, feed)[0]
            assert answer.shape == (3, 10) and np.isfinite(answer).all()
