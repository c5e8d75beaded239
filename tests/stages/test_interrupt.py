"""Interrupted at any moment and run again: the artifacts are those of an uninterrupted run, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.plumbing.runtime import STATE
from tests.stages.conftest import ROOT, TINY, write_params

LONGER = {**TINY, "search.epochs": 6, "retrain.epochs": 8}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, store: str) -> Path:
    """A project in which every stage up to retrain ran without interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    write_params(folder / "params.yaml", LONGER)
    (folder / "data").mkdir()
    for stage in ("prepare", "search", "discretize", "retrain"):
        process = start(stage, folder, store)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    return folder


def start(stage: str, folder: Path, store: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1",
                   "MLFLOW_EXPERIMENT_NAME": "tests"}  # fmt: skip
    command = [sys.executable, "-u", "-m", f"stages.{stage}"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def after_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    """Waits until the stage has printed the line of that epoch."""
    assert process.stdout is not None
    for line in process.stdout:
        if f"epoch {epoch}/" in line:
            return
    raise AssertionError(f"the stage ended before epoch {epoch}: {process.communicate()[1]}")


def contents(folder: Path) -> dict[str, bytes]:
    """The artifacts that hold results; pictures are made of these."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".png"}


@pytest.mark.parametrize("stage", ["search", "retrain"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_goes_on_bit_identically(
    project: Path, prepared: Path, store: str, stage: str, number: signal.Signals
) -> None:
    import shutil

    write_params(project / "params.yaml", LONGER)
    shutil.copytree(prepared / "artifacts", project / "artifacts")
    expected = contents(project / "artifacts" / stage)
    shutil.rmtree(project / "artifacts" / stage)

    process = start(stage, project, store)
    after_epoch(process, 2)
    time.sleep(0.3)  # into the third epoch
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert errors.count("\n") == 1
        assert f"interrupted by {number.name}" in errors
    assert not (project / "artifacts" / stage).exists()

    again = start(stage, project, store)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert f"{stage}: resumes after epoch" in output
    assert "epoch 1/" not in output
    assert contents(project / "artifacts" / stage) == expected
    assert not any(path.is_dir() for path in (project / STATE / stage).iterdir())


def test_a_damaged_checkpoint_is_refused_and_nothing_is_lost(
    project: Path,
    prepared: Path,
    store: str,
    run_stage: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    write_params(project / "params.yaml", LONGER)
    shutil.copytree(prepared / "artifacts", project / "artifacts")
    before = contents(project / "artifacts" / "search")
    process = start("search", project, store)
    after_epoch(process, 2)
    process.kill()
    process.communicate()
    (path,) = (project / STATE / "search").glob("*/state.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert run_stage("search") == 2
    error = capsys.readouterr().err
    assert "is damaged" in error
    assert "delete" in error
    assert error.count("\n") == 1
    assert contents(project / "artifacts" / "search") == before


def test_two_processes_of_one_stage_do_not_write_at_once(
    project: Path, prepared: Path, store: str, monkeypatch: pytest.MonkeyPatch,
    run_stage: Callable[..., int], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import shutil

    write_params(project / "params.yaml", LONGER)
    shutil.copytree(prepared / "artifacts", project / "artifacts")
    first = start("search", project, store)
    try:
        after_epoch(first, 1)
        monkeypatch.setattr("stages.plumbing.runtime.LOCK_PATIENCE", 0.2)
        assert run_stage("search") == 1
        assert "another process runs this stage" in capsys.readouterr().err
    finally:
        first.kill()
        first.communicate()
