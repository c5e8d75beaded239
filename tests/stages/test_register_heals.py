"""Registration recovers when interrupted, damaged, emptied, restored elsewhere, or done twice at the same time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from stages import register
from stages.registry import lineage, verdict, versions
from tests.stages.conftest import ROOT
from tests.stages.networks import export, linear
from tests.stages.registering import (
    BAD,
    GOOD,
    RunStage,
    alias,
    number,
    registry,
)


def test_again_changes_nothing(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    files = [Path("artifacts/registry.json"), Path("artifacts/model_card.md")]
    before = [file.read_bytes() for file in files]
    assert run_stage("register") == 0
    assert [file.read_bytes() for file in files] == before
    for file in files:
        file.unlink()
    assert run_stage("register") == 0
    assert [file.read_bytes() for file in files] == before
    assert len(MlflowClient(tracking_uri=store).search_model_versions(f"name = '{named}'")) == 1


def test_a_registered_file_that_answers_differently_is_refused(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = versions.make

    def damaged(*arguments: object) -> ModelVersion:
        export(linear(BAD))
        version = make(*arguments)  # type: ignore[arg-type]
        export(linear(GOOD))
        return version

    export(linear(GOOD))
    monkeypatch.setattr(versions, "make", damaged)
    assert run_stage("register") == 0
    (reason,) = registry()["refusals"]
    assert reason.startswith("the registered file does not give the same answers")
    assert alias(store, named, "challenger").tags["gate"] == "refused"
    with pytest.raises(mlflow.MlflowException):
        alias(store, named, "champion")


def test_a_champion_whose_file_is_lost_is_not_replaced(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    mlflow.set_tracking_uri(store)
    location = MlflowClient(tracking_uri=store).get_model_version_download_uri(named, "1")
    shutil.rmtree(location.removeprefix("file://"))
    export(linear(GOOD))
    assert run_stage("register") == 0
    assert registry()["reason"].startswith("not promoted: the champion, version 1, cannot be run (")
    assert number(store, named) == 1


def test_an_emptied_registry_gets_its_version_again(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    client = MlflowClient(tracking_uri=store)
    client.delete_registered_model(named)
    assert run_stage("register") == 0
    assert int(client.get_model_version_by_alias(named, "champion").version) == registry()["version"]


def test_a_restored_clone_registers_in_its_own_store(
    named: str, run_stage: RunStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_stage("register") == 0  # registry.json is there, as if pulled from a DVC remote
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert run_stage("register") == 0
    assert MlflowClient(tracking_uri=other).get_model_version_by_alias(named, "champion").version
    assert registry()["runs"]["search"] is None  # that run is in the other store


@pytest.mark.parametrize(
    ("where", "step"),
    [(register, "judged"), (register, "promote"), (verdict, "tags"), (lineage, "link")],
)
def test_a_registration_cut_off_before_its_end_is_completed(
    named: str,
    run_stage: RunStage,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    step: str,
) -> None:
    def crash(*_: object) -> None:
        raise OSError("the machine stopped")

    with monkeypatch.context() as patched:
        patched.setattr(where, step, crash)
        assert run_stage("register") == 1
    client = MlflowClient(tracking_uri=store)
    assert not Path("artifacts/registry.json").exists()
    assert run_stage("register") == 0
    assert registry()["promoted"] is True
    assert int(client.get_model_version_by_alias(named, "champion").version) == 1
    assert len(client.search_model_versions(f"name = '{named}'")) == 1


def test_two_registrations_at_once_leave_the_better_one(
    named: str, run_stage: RunStage, store: str, tmp_path: Path
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    processes = []
    for pixels in (40, GOOD):
        folder = tmp_path / f"workspace{pixels}"
        folder.mkdir()
        shutil.copytree("artifacts", folder / "artifacts")
        shutil.copy("params.yaml", folder)
        here = Path.cwd()
        os.chdir(folder)
        export(linear(pixels))
        os.chdir(here)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "stages.register"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    reports = [
        json.loads((tmp_path / f"workspace{pixels}/artifacts/registry.json").read_text())
        for pixels in (40, GOOD)
    ]
    assert reports[1]["test_accuracy"] > reports[0]["test_accuracy"]
    assert reports[1]["promoted"] is True
    assert number(store, named) == reports[1]["version"]
    if reports[0]["promoted"]:  # this one came first
        assert reports[1]["champion_before"] == reports[0]["version"]
    else:
        assert reports[0]["champion_after"] == reports[1]["version"]
