"""Bad input gives one line on stderr and exit status 2 (1 for failures of the machine), and changes no artifacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.stages.conftest import TINY, write_params

RunStage = Callable[..., int]


def fingerprint(project: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((project / "artifacts").rglob("*"))
        if path.is_file()
    }


def fails(
    run_stage: RunStage, capsys: pytest.CaptureFixture[str], stage: str, status: int, *words: str
) -> None:
    capsys.readouterr()
    assert run_stage(stage) == status
    error = capsys.readouterr().err
    assert error.startswith(f"error: {stage}: ")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    "stage", ["prepare", "measure", "search", "discretize", "retrain", "export", "register"]
)
def test_a_typing_error_stops_every_stage(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    before = fingerprint(finished_copy)
    write_params(finished_copy / "params.yaml", {**TINY, "search.epochs": ..., "search.epoch": 3})
    fails(run_stage, capsys, stage, 2, "search.epoch is unknown; did you mean search.epochs?")
    assert fingerprint(finished_copy) == before


@pytest.mark.parametrize("name", ["imagefolder", "npz"])
def test_a_missing_data_root(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    before = fingerprint(finished_copy)
    write_params(finished_copy / "params.yaml", {**TINY, "data.name": name, "data.root": "nowhere"})
    fails(run_stage, capsys, "prepare", 2, "data.root is nowhere", "must")
    assert fingerprint(finished_copy) == before


def test_an_unreadable_image(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprint(finished_copy)
    for name in ("a", "b"):
        (finished_copy / "own" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(finished_copy / "own" / name / f"{number}.png")
    (finished_copy / "own" / "b" / "2.png").write_bytes(b"no image at all")
    write_params(finished_copy / "params.yaml", {**TINY, "data.name": "imagefolder", "data.root": "own"})
    fails(run_stage, capsys, "prepare", 2, "own/b/2.png (not a picture) cannot be read; repair or remove it")
    assert fingerprint(finished_copy) == before


@pytest.mark.parametrize("stage", ["search", "retrain"])
def test_a_loss_that_is_not_a_number(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    before = fingerprint(finished_copy)
    rate = "search.weights.learning_rate" if stage == "search" else "retrain.learning_rate"
    clip = "search.weights.gradient_clip" if stage == "search" else "retrain.gradient_clip"
    write_params(finished_copy / "params.yaml", {**TINY, rate: 1e30, clip: 1e30})
    fails(run_stage, capsys, stage, 2, "loss", "in epoch", f"lower {rate}")
    assert fingerprint(finished_copy) == before


def test_an_mlflow_server_that_is_away(
    finished_copy: Path,
    run_stage: RunStage,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fingerprint(finished_copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    fails(
        run_stage, capsys, "search", 1, "http://127.0.0.1:9 cannot be reached", "correct MLFLOW_TRACKING_URI"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    fails(run_stage, capsys, "register", 2, "MLFLOW_TRACKING_URI is 'mlruns'", "sqlite:///")
    assert fingerprint(finished_copy) == before


@pytest.mark.parametrize(
    ("stage", "path", "content"),
    [
        ("search", "artifacts/data/data.json", None),
        ("search", "artifacts/data/train_images.npy", b"\x93NUMPY"),
        ("discretize", "artifacts/search/alphas.safetensors", b"short"),
        ("retrain", "artifacts/genotype/genotype.json", b"{"),
        ("retrain", "artifacts/genotype/genotype.json", b'{"space": "darts", "normal": [["conv_9x9", 0]]}'),
        ("export", "artifacts/retrain/weights.safetensors", None),
        ("export", "artifacts/retrain/weights.safetensors", b"short"),
        ("register", "artifacts/export/model.onnx", None),
    ],
)
def test_a_missing_or_damaged_artifact_is_named(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], stage: str, path: str, content: bytes | None
) -> None:  # fmt: skip
    if content is None:
        (finished_copy / path).unlink()
    else:
        (finished_copy / path).write_bytes(content)
    fails(run_stage, capsys, stage, 2, path)


def test_weights_of_another_size(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(finished_copy / "params.yaml", {**TINY, "retrain.channels": 3})
    fails(run_stage, capsys, "export", 2, "does not fit the network", "dvc repro retrain")


def test_outside_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_stage: RunStage, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(run_stage, capsys, "search", 2, "params.yaml is not in", "run stages from the project's folder")


def test_debug_shows_the_traceback(project: Path, run_stage: RunStage) -> None:
    write_params(project / "params.yaml", {**TINY, "search.epochs": 0})
    with pytest.raises(Exception, match=r"search.epochs is 0"):
        run_stage("search", "--debug")


def test_a_defect_of_ours_is_one_line_too(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads((finished_copy / "artifacts/data/data.json").read_text())
    about["mean"] = []  # as many channels as no image has
    (finished_copy / "artifacts/data/data.json").write_text(json.dumps(about))
    fails(run_stage, capsys, "search", 1, "run with --debug for the traceback")


def test_a_damaged_artifact_is_named_with_the_key(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished_copy / "artifacts/data/data.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mean": "nonsense"}))
    fails(run_stage, capsys, "search", 2, "artifacts/data/data.json is damaged (mean: ")


def test_too_few_images(project: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((6, 8, 8), np.uint8)
    np.savez(project / "few.npz", train_images=images, train_labels=np.array([0, 1] * 3))
    write_params(
        project / "params.yaml",
        {**TINY, "data.name": "npz", "data.root": "few.npz", "data.test_fraction": 0.7},
    )
    fails(run_stage, capsys, "prepare", 2, "too few")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_graphs_without_cuda(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprint(finished_copy)
    write_params(finished_copy / "params.yaml", {**TINY, "search.compile": "graphs"})
    fails(
        run_stage,
        capsys,
        "search",
        2,
        "search.compile is graphs, but this machine has no CUDA device; set it to",
    )
    assert fingerprint(finished_copy) == before
