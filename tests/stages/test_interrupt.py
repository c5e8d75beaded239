"""A run that is interrupted at any moment and repeated makes the artifacts of an uninterrupted run, bit for bit."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.conftest import TINY, run_in, write_params
from tests.stages.processes import Start, after_epoch, checkpoints, contents, fork, start

LONGER = {**TINY, "search.epochs": 6, "retrain.epochs": 8}
MODERN = {
    **LONGER,
    "retrain.recipe": "modern",
    "retrain.mixup": 0.2,
    "retrain.cutmix": 1.0,
    "retrain.random_erasing": 0.25,
    "retrain.randaugment": 1,
}
PATIENCE = 120  # seconds, for a busy machine


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, store: str) -> Path:
    """A project in which every stage up to retrain ran without interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_in(folder, store, LONGER, "prepare", "search", "discretize", "retrain")
    return folder


@pytest.fixture
def longer(project: Path, prepared: Path) -> Path:
    """The current folder: a copy of that project."""
    write_params(project / "params.yaml", LONGER)
    shutil.copytree(prepared / "artifacts", project / "artifacts")
    return project


@pytest.mark.parametrize("stage", ["search", "retrain"])
@pytest.mark.parametrize(
    ("number", "begin"),
    [(signal.SIGINT, fork), (signal.SIGTERM, fork), (signal.SIGKILL, start)],
    ids=["SIGINT", "SIGTERM", "SIGKILL-command"],
)
def test_goes_on_bit_identically(
    longer: Path, store: str, stage: str, number: signal.Signals, begin: Start
) -> None:
    interrupted_and_repeated(longer, store, stage, number, begin)


def test_everything_that_the_modern_recipe_draws_goes_on_bit_identically(longer: Path, store: str) -> None:
    before = contents(longer / "artifacts" / "retrain")
    write_params(longer / "params.yaml", MODERN)
    whole = fork("retrain", longer, store)
    _, errors = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, errors
    assert contents(longer / "artifacts" / "retrain") != before
    interrupted_and_repeated(longer, store, "retrain", signal.SIGKILL, fork)


def interrupted_and_repeated(
    longer: Path, store: str, stage: str, number: signal.Signals, begin: Start
) -> None:
    """Interrupts a stage whose results are there, repeats it, and expects the same results."""
    expected = contents(longer / "artifacts" / stage)
    shutil.rmtree(longer / "artifacts" / stage)

    process = begin(stage, longer, store)
    after_epoch(process, 2)
    time.sleep(0.3)  # until the third epoch has begun
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert errors.count("\n") == 1
        assert f"interrupted by {number.name}; `dvc repro` resumes {stage} after epoch " in errors
    assert not (longer / "artifacts" / stage).exists()

    again = begin(stage, longer, store)
    output, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert f"{stage}: resumes after epoch" in output
    assert "epoch 1/" not in output
    assert contents(longer / "artifacts" / stage) == expected
    assert checkpoints(longer, stage) == []


def test_a_damaged_checkpoint_is_refused_and_nothing_is_lost(
    longer: Path, store: str, run_stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(longer / "artifacts" / "search")
    process = fork("search", longer, store)
    after_epoch(process, 2)
    process.kill()
    process.communicate(timeout=PATIENCE)
    (path,) = (path for kept in checkpoints(longer, "search") for path in kept.glob("state.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    assert run_stage("search") == 2
    error = capsys.readouterr().err
    assert "is damaged" in error
    assert "delete" in error
    assert error.count("\n") == 1
    assert contents(longer / "artifacts" / "search") == before


def test_two_processes_of_one_stage_do_not_write_at_once(
    longer: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    run_stage: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = fork("search", longer, store)
    try:
        after_epoch(first, 1)
        monkeypatch.setattr("stages.plumbing.runtime.LOCK_PATIENCE", 0.2)
        assert run_stage("search") == 1
        assert "another process runs this stage" in capsys.readouterr().err
    finally:
        first.kill()
        first.communicate(timeout=PATIENCE)
