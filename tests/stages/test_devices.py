"""train.devices: one process per device, but one command that prints, writes and fails once, and leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient

from stages.plumbing.files import read_rows
from tests.stages.conftest import TINY, write_params
from tests.stages.processes import Process, after_epoch, checkpoints, contents, fork

TWO = {
    **TINY,
    "train.devices": 2,
    "search.space": "nasbench201",  # the smallest
    "search.cells": 1,
    "retrain.epochs": 6,
    "retrain.learning_rate": 1e-3,  # small, so that steps do not multiply the differences of rounding
}
# Relative, of the losses of two epochs in float32: they differ by 3e-7 to 6e-6, depending on the cell. Twice the gradient
# would change them by 1e-4.
TOLERANCE = 2e-5
PATIENCE = 300  # seconds, for a busy machine


@pytest.fixture
def two(finished_copy: Path) -> Path:
    """The current folder: a finished small project, now with two devices and without the results of long stages."""
    write_params(finished_copy / "params.yaml", TWO)
    for stage in ("search", "retrain"):
        shutil.rmtree(finished_copy / "artifacts" / stage)
    return finished_copy


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, finished: Path, store: str) -> tuple[Path, str]:
    """The folder where retrain ran on two devices, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(finished / "artifacts", folder / "artifacts")
    write_params(folder / "params.yaml", TWO)
    process = fork("retrain", folder, store)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, ""), errors
    return folder, output


def ranks(launcher: Process) -> list[psutil.Process]:
    """The processes of the devices, rank 0 first."""
    found = [
        child
        for child in psutil.Process(launcher.pid).children()
        if "stages.plumbing.devices" in child.cmdline()
    ]
    assert len(found) == 2
    return sorted(found, key=lambda process: int(process.environ()["RANK"]))


def all_end(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=PATIENCE)[1] == []


def one_line(errors: str, *words: str) -> bool:
    return errors.count("\n") == 1 and all(word in errors for word in words)


def test_two_devices_are_one_training(
    undisturbed: tuple[Path, str], two: Path, run_stage: Callable[..., int], store: str
) -> None:
    folder, output = undisturbed
    write_params(two / "params.yaml", {**TWO, "train.devices": 1})
    assert run_stage("retrain") == 0
    single, double = (read_rows(project / "artifacts/retrain/history.csv") for project in (two, folder))
    for column in ("train_loss", "valid_loss"):
        for epoch in range(2):
            assert double[epoch][column] == pytest.approx(single[epoch][column], rel=TOLERANCE)
    # Only the first process speaks and writes.
    lines = output.splitlines()
    assert [line.split()[2] for line in lines[:6]] == [f"{epoch}/6" for epoch in range(1, 7)]
    assert lines[6].startswith("retrain: test accuracy")
    assert all(line.startswith("retrain: notice: ") for line in lines[7:]) and len(lines) <= 8
    assert checkpoints(folder, "retrain") == []
    mlflow = MlflowClient(store)
    experiment = mlflow.get_experiment_by_name("tests")
    assert experiment is not None
    runs = mlflow.search_runs(
        [experiment.experiment_id],
        "params.`train.devices` = '2' and params.epochs = '6' and tags.stage = 'retrain'",
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert len(mlflow.get_metric_history(runs[0].info.run_id, "train_loss")) == 6


def test_killed_twice_and_resumed_it_is_the_undisturbed_one(
    two: Path, undisturbed: tuple[Path, str], store: str
) -> None:
    first = fork("retrain", two, store)
    after_epoch(first, 1)
    zero, one = ranks(first)
    one.kill()
    _, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert one_line(
        errors,
        "error: retrain: the process of device 1 was ended by SIGKILL",
        "the next run resumes retrain after epoch 1",
    )
    assert not zero.is_running()

    second = fork("retrain", two, store)
    after_epoch(second, 3)
    running = ranks(second)
    second.kill()
    second.communicate()
    assert all_end(running)

    third = fork("retrain", two, store)
    output, errors = third.communicate(timeout=PATIENCE)
    assert third.returncode == 0, errors
    assert "retrain: resumes after epoch" in output
    assert "epoch 3/" not in output
    assert contents(two / "artifacts/retrain") == contents(undisturbed[0] / "artifacts/retrain")


def test_search_is_interrupted_in_one_line_and_goes_on(two: Path, store: str) -> None:
    process = fork("search", two, store)
    after_epoch(process, 1)
    running = ranks(process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert errors == "search: interrupted by SIGTERM; `dvc repro` resumes search after epoch 1\n"
    assert all_end(running)
    again = fork("search", two, store)
    output, errors = again.communicate(timeout=PATIENCE)
    assert (again.returncode, errors) == (0, "")
    assert output.startswith("search: resumes after epoch")
    assert len(read_rows(two / "artifacts/search/history.csv")) == 3


def test_a_mistake_of_the_user_is_told_once(two: Path, store: str) -> None:
    genotype = two / "artifacts/genotype/genotype.json"
    genotype.unlink()
    process = fork("retrain", two, store)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert errors == "error: retrain: artifacts/genotype/genotype.json is missing; `dvc repro` makes it\n"


def test_more_devices_than_there_are(
    two: Path,
    run_stage: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert run_stage("retrain") == 2
    assert one_line(
        capsys.readouterr().err, "train.devices is 2, but this machine has 1 GPUs", "set it to 1 or less"
    )
