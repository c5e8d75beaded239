"""The files in which a stage records how far it is and how it ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.training.events import EpochEnd, Measuring, StepEnd
from stages.errors import MachineError, UserError
from stages.plumbing import counting, runtime, status
from stages.plumbing.progress import EpochProgress
from stages.plumbing.runtime import Interrupted
from stages.plumbing.status import ATTEMPT, EXECUTION, STATE, Outcome, Progress, next_attempt, own_progress
from tests.stages.conftest import ROOT, TINY, run_here, write_params

Main = Callable[..., None]

# Writes as fast as it can, until it is killed.
WRITER = """
from stages.plumbing.status import ProgressFile, begin, end, now
for number in range(10**9):
    begin("search")
    ProgressFile("search").write(epoch=1, epochs=2, step=number % 50, steps=50, line="x" * 5000)
    end("search", now(), 0, "y" * 5000)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, in which a flow starts stages."""
    write_params(tmp_path / "params.yaml", TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ATTEMPT, "second")
    monkeypatch.setenv(EXECUTION, "run")
    return tmp_path


def run(main: Main, *options: str) -> int:
    return run_here("search", main, *options)


@pytest.mark.parametrize(
    ("error", "exit_status", "message"),
    [
        (None, 0, ""),
        (UserError("search.epochs is 0"), 2, "search.epochs is 0"),
        (MachineError("the server is away"), 1, "the server is away"),
        (OSError(28, "No space left on device", "weights"), 1, "No space left on device (weights)"),
        (Interrupted("interrupted by SIGTERM", 143), 143, "interrupted by SIGTERM"),
    ],
)
def test_how_a_stage_ended_is_in_its_outcome(
    folder: Path,
    error: BaseException | None,
    exit_status: int,
    message: str,
) -> None:
    def main(_: object) -> None:
        assert Outcome.read(folder, "search", "second") is None
        begun = Progress.read(folder, "search", "second")
        assert begun is not None
        assert begun.fraction is None
        if error is not None:
            raise error

    before = status.now()
    assert run(main) == exit_status
    outcome = Outcome.read(folder, "search", "second")
    assert outcome is not None
    assert (outcome.status, outcome.message, outcome.execution) == (exit_status, message, "run")
    assert before <= outcome.started <= outcome.ended <= status.now()


@pytest.mark.parametrize(
    ("saved", "then"),
    [
        (None, "starts search again"),
        (0, "starts search again"),
        (2, "resumes search after epoch 2"),
    ],
)
def test_an_interruption_says_what_the_next_run_does(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    saved: int | None,
    then: str,
) -> None:
    """``saved``: the epochs in the checkpoint; None: the training has not begun."""
    status.ProgressFile("search").write(saved=5)  # of an earlier run, whose checkpoint is gone

    def main(_: object) -> None:
        if saved is not None:
            with EpochProgress("search", ("train_loss",)) as progress:
                progress.step(StepEnd(1, 3, 1, 1))
                progress.epoch(EpochEnd(1, 3, {"train_loss": 2.5}, dict), saved=saved)
                progress.step(StepEnd(2, 3, 1, 1))
        raise Interrupted("interrupted by SIGINT", 130)

    assert run(main) == 130
    assert capsys.readouterr().err == f"search: interrupted by SIGINT; `dvc repro` {then}\n"


def test_an_interruption_before_the_stage_begins_promises_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise Interrupted("interrupted by SIGINT", 130)

    status.ProgressFile("search").write(saved=5)
    monkeypatch.setattr(runtime, "load", load)
    assert run(lambda _: None) == 130
    assert capsys.readouterr().err == "search: interrupted by SIGINT before it began\n"


def test_an_interrupted_command_that_is_no_stage_does_not_name_dvc(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: object, move: str | None) -> None:
        raise Interrupted("interrupted by SIGINT", 130)

    assert run_here("champion", main, move="") == 130
    assert capsys.readouterr().err == "champion: interrupted by SIGINT\n"


def test_an_error_is_told_also_where_its_traceback_is_shown(folder: Path) -> None:
    def main(_: object) -> None:
        raise UserError("search.epochs is 0")

    with pytest.raises(UserError):
        run(main, "--debug")
    outcome = Outcome.read(folder, "search", "second")
    assert outcome is not None
    assert outcome.status == 2


def test_wrong_parameters_are_told_before_the_stage_begins(folder: Path) -> None:
    write_params(folder / "params.yaml", {"search.epochs": "many"})
    assert run(lambda _: None) == 2
    outcome = Outcome.read(folder, "search", "second")
    assert outcome is not None
    assert "search.epochs is 'many'" in outcome.message
    assert Progress.read(folder, "search", "second") is None


def test_a_folder_that_is_no_project_stays_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(lambda _: None) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_attempt_told_is_not_taken_for_the_present_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ATTEMPT, "first")
    assert run(lambda _: None) == 0
    assert Outcome.read(folder, "search", "first") is not None
    assert Outcome.read(folder, "search", "second") is None
    assert Progress.read(folder, "search", "second") is None
    monkeypatch.setenv(ATTEMPT, "second")
    status.begin("search")  # and is killed
    assert Outcome.read(folder, "search", "first") is None
    assert Progress.read(folder, "search", "second") is not None


def test_killed_at_any_moment_a_writer_leaves_whole_files(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = folder / STATE / "search"
    for pause in (0.0, 0.003, 0.011, 0.027):
        writer = subprocess.Popen([sys.executable, "-c", WRITER], cwd=folder, env=environment)
        while not (path / "outcome.json").exists():
            time.sleep(0.001)
        time.sleep(pause)
        writer.kill()
        writer.wait()
        Progress.model_validate_json((path / "progress.json").read_bytes())
        if (path / "outcome.json").exists():
            Outcome.model_validate_json((path / "outcome.json").read_bytes())
        status.begin("search")
        assert [file.name for file in path.iterdir()] == ["progress.json"]  # and no half-written file


def test_progress_is_written_once_a_second_and_at_every_epochs_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr("time.monotonic", lambda: clock)

    def told() -> Progress:
        progress = Progress.read(folder, "search", "second")
        assert progress is not None
        return progress

    status.begin("search")
    with EpochProgress("search", ("train_loss",)) as progress:
        progress.step(StepEnd(1, 2, 1, 10))
        assert (told().epoch, told().step, told().fraction) == (1, 1, 0.05)
        clock += 0.9
        progress.step(StepEnd(1, 2, 2, 10))
        assert told().step == 1
        clock += 0.1
        progress.step(StepEnd(1, 2, 3, 10))
        assert (told().step, told().seconds_left) == (3, pytest.approx(8.5))  # 2 steps took 1 s, 17 are left
        progress.epoch(EpochEnd(1, 2, {"epoch": 1, "train_loss": 2.5, "hessian": None}, dict))
        assert told().fraction == 0.5
        assert told().values == {"epoch": 1, "train_loss": 2.5, "hessian": None}
        assert told().line.startswith("search epoch 1/2  train_loss 2.5")
        progress.measuring(Measuring("Hessian eigenvalue, product", 1, 50))
        assert told().line.startswith("search epoch 1/2")
        clock += 1
        progress.measuring(Measuring("Hessian eigenvalue, product", 2, 50))
        assert told().line == "search: Hessian eigenvalue, product 2 of at most 50"
        assert told().fraction == 0.5


def test_a_count_is_progress_and_says_what_the_next_attempt_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(counting.time, "monotonic", lambda: float(next(clock)))
    with counting.counting("prepare", resumed="pictures") as count:
        count("headers", 10, 40)
        assert next_attempt("prepare", own_progress("prepare")) == "starts prepare again"
        count("pictures", 10, 40)
        count("pictures", 20, 40)
        progress = own_progress("prepare")
    assert progress is not None and progress.fraction == 0.5
    assert next_attempt("prepare", progress) == "resumes prepare with the pictures that remain"
    assert re.search(r"^prepare: 20 of 40 pictures, \d+:\d\d left$", capsys.readouterr().out, re.MULTILINE)
