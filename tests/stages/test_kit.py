"""Kits measure on devices that have neither the project nor its packages, and their tables are taken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stages import measure
from stages.measuring import bench
from tests.stages.conftest import SMALL, run_here, write_params
from tests.stages.test_measure import record

RunStage = Callable[..., int]


@pytest.fixture
def kit(small: Path) -> Path:
    assert pack("device.zip") == 0
    return small / "device.zip"


def pack(*out: str) -> int:
    return run_here("measure", measure.kit, "kit", *out, command="", out="")


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


def test_equal_kits_are_equal_bytes_and_small(kit: Path) -> None:
    before = kit.read_bytes()
    assert pack("device.zip") == 0
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
def test_a_kit_needs_a_place(small: Path, capsys: pytest.CaptureFixture[str], out: tuple[str, ...]) -> None:
    assert pack(*out) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_networks_of_a_kit_answer_like_networks(kit: Path) -> None:
    """Made-up weights neither overflow nor vanish, which would change how long the processor takes."""
    with zipfile.ZipFile(kit) as packed:
        feed = bench.feed_of(json.loads(packed.read("manifest.json"))["inputs"], 3)
        for name in [name for name in packed.namelist() if name.endswith(".onnx")][:10]:
            answer = np.asarray(bench.session_of(packed.read(name), 1).run(None, feed)[0])
            assert answer.shape == (3, 10) and np.isfinite(answer).all()
