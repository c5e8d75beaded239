"""The final status of MLflow runs, and which runs have the same parent."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stages.plumbing.pipeline import PIPELINE, PipelineRun
from stages.plumbing.runtime import Interrupted
from stages.plumbing.tracking import client, ending, git_commit, stage_run
from tests.stages.conftest import TINY, write_params


@pytest.mark.parametrize(
    ("raised", "status"),
    [(None, "FINISHED"), (ValueError(), "FAILED"), (Interrupted("a signal", 143), "KILLED")],
)
def test_a_run_ends_as_its_work_does(raised: BaseException | None, status: str, tmp_path: Path) -> None:
    mlflow = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = [mlflow.create_run("0").info.run_id for _ in range(2)]
    with contextlib.suppress(ValueError, Interrupted), ending(mlflow, *runs):
        if raised is not None:
            raise raised
    assert [mlflow.get_run(run).info.status for run in runs] == [status, status]


def parent_of(stage: str) -> str:
    """Runs an empty stage and returns the parent of its run."""
    with stage_run(stage, {}) as run:
        pass
    return client().get_run(run.id).data.tags["mlflow.parentRunId"]


def test_the_stages_of_one_execution_have_one_parent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSDARTS_EXECUTION", "first")
    first = parent_of("search")
    assert parent_of("retrain") == first
    record = PipelineRun.read(project)
    assert record is not None and (record.run_id, record.execution) == (first, "first")
    monkeypatch.setenv("MSDARTS_EXECUTION", "second")
    second = parent_of("search")
    assert second != first, "the first has ended well"

    for damage in ("", "{}", '{"run_id": 1}'):
        PIPELINE.write_text(damage)
        assert PipelineRun.read(project) is None
    assert parent_of("retrain") not in (first, second)
    PIPELINE.unlink()
    assert PipelineRun.read(project) is None


@pytest.mark.parametrize("status", ["RUNNING", "KILLED", "FAILED"])
def test_a_run_that_was_cut_off_keeps_its_parent_and_another_run_gets_its_own(
    status: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSDARTS_EXECUTION", "first")
    first = parent_of("search")
    client().update_run(first, status=status)  # RUNNING: as kill -9 leaves it
    monkeypatch.setenv("MSDARTS_EXECUTION", "second")
    monkeypatch.setenv("MSDARTS_FLOW_RUN", "flow-2")
    assert parent_of("search") == first
    run = client().get_run(first)
    assert (run.info.status, run.data.tags["prefect_flow_run"]) == ("FINISHED", "flow-2")

    client().update_run(first, status=status)
    write_params(project / "params.yaml", {**TINY, "search.seed": 5})
    monkeypatch.setenv("MSDARTS_EXECUTION", "third")
    assert parent_of("search") != first
    assert client().get_run(first).info.status == ("KILLED" if status == "RUNNING" else status)


@pytest.mark.parametrize("status", ["RUNNING", "FAILED"])
def test_a_run_that_a_person_has_deleted_is_not_gone_on_with(
    status: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSDARTS_EXECUTION", "first")
    with stage_run("search", {}) as stage:
        parent = client().get_run(stage.id).data.tags["mlflow.parentRunId"]
    client().update_run(parent, status=status)
    for run in (stage.id, parent):
        client().delete_run(run)
    with stage_run("search", {}, resume=stage.id) as again:  # of the same execution
        assert again.id != stage.id
        assert client().get_run(again.id).data.tags["mlflow.parentRunId"] != parent


def test_the_commit_is_dirty_when_code_or_settings_differ_and_not_when_results_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "none"

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    for name in ("dvc.lock", "code.py"):
        Path(name).write_text("before")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "project")
    commit = git("rev-parse", "HEAD")
    Path("dvc.lock").write_text("after a run")
    Path("untracked").write_text("notes")
    assert git_commit() == commit
    git("add", "dvc.lock")
    assert git_commit() == commit, "also when it is staged"
    Path("code.py").write_text("other")
    assert git_commit() == f"{commit}-dirty"
