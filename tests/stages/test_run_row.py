"""The row of a run in MLflow: found, sorted and compared without being expanded, and free of an earlier run's numbers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from stages.plumbing import run_row
from stages.plumbing.pipeline import PipelineRun
from stages.plumbing.runtime import WORKSPACES
from stages.plumbing.tracking import client, stage_run
from tests.stages.conftest import TINY, write_params


def row_after(*stages: str) -> Run:
    """The row after empty stages, whose artifacts are there."""
    for stage in stages:
        with stage_run(stage, {}):
            pass
    record = PipelineRun.read(Path())
    assert record is not None
    return client().get_run(record.run_id)


def data_of(run: Run) -> list[str]:
    return [each.dataset.name for each in run.inputs.dataset_inputs] if run.inputs else []


def content(name: str) -> dict[str, Any]:
    return json.loads(Path("artifacts", name).read_text())


def test_the_row_has_the_numbers_of_what_has_ended_and_no_others(
    finished_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSDARTS_EXECUTION", "one")
    searched = row_after("search")
    summary = content("search/summary.json")
    assert searched.data.metrics["discretization_gap"] == summary["discretization_gap"]
    assert not {"test_accuracy", "latency_ms"} & searched.data.metrics.keys(), "these are of an earlier run"
    assert data_of(searched) == ["digits"]

    tested = row_after("retrain")
    assert tested.info.run_id == searched.info.run_id
    metrics = content("retrain/metrics.json")
    assert tested.data.metrics["test_accuracy"] == metrics["test_accuracy"]
    assert tested.data.metrics["params"] == metrics["params"]
    assert "latency_ms" not in tested.data.metrics

    monkeypatch.setenv("MSDARTS_EXECUTION", "two")  # in which all stages before are up to date
    whole = row_after("register")
    exported = content("export/export.json")
    assert whole.data.metrics["latency_ms"] == exported["latency_ms"]["onnxruntime_batch_1"]
    assert whole.data.metrics.keys() >= {
        "discretization_gap",
        "test_accuracy",
        "test_balanced_accuracy",
        "macs",
    }
    history = client().get_metric_history(whole.info.run_id, "test_accuracy")
    assert len(history) == 1, "noted once, although two moments knew it"
    assert data_of(whole) == ["digits"]
    found = client().search_runs(
        [whole.info.experiment_id],
        f"tags.stage = 'pipeline' and metrics.test_accuracy >= {metrics['test_accuracy']}",
        order_by=["metrics.latency_ms ASC"],
    )
    assert whole.info.run_id in [run.info.run_id for run in found]


def test_the_row_says_where_the_run_comes_from_and_what_differs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "project"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    monkeypatch.setenv("MSDARTS_EXECUTION", "one")
    plain = row_after("prepare")
    assert (plain.info.run_name, plain.data.params) == ("digits-ms-darts", {})
    assert plain.data.tags["mlflow.source.git.commit"] == plain.data.tags["git_commit"] == commit
    assert plain.data.tags["mlflow.source.name"] == "dvc.yaml"
    assert "dvc_experiment" not in plain.data.tags

    write_params(project / "params.yaml", {**TINY, "search.seed": 5, "share.push": True})
    monkeypatch.setenv("MSDARTS_EXECUTION", "two")
    changed = row_after("prepare")
    assert str(changed.info.run_name).startswith("digits-ms-darts-seed5-")
    assert changed.data.params == {"search.seed": "5"}
    assert changed.data.tags["git_commit"] == f"{commit}-dirty"
    assert changed.data.tags["mlflow.source.git.commit"] == commit
    found = client().search_runs(
        [changed.info.experiment_id], "params.`search.seed` = '5' and tags.stage = 'pipeline'"
    )
    assert [run.info.run_id for run in found] == [changed.info.run_id]

    monkeypatch.setenv("MSDARTS_EXECUTION", "three")
    monkeypatch.setenv("DVC_EXP_NAME", "my-trial")
    monkeypatch.setenv(run_row.FLOW_RUN, "flow-1")
    named = row_after("prepare")
    assert named.info.run_name == named.data.tags["dvc_experiment"] == "my-trial"
    assert named.data.tags["mlflow.source.name"] == "pipelines/nas.py"


def test_in_a_workspace_the_row_is_called_as_the_workspace(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / WORKSPACES / "digits-ms-darts-seed3-01234567"
    folder.mkdir(parents=True)
    write_params(folder / "params.yaml", TINY)
    monkeypatch.chdir(folder)
    row = row_after("prepare")
    assert row.info.run_name == row.data.tags["dvc_experiment"] == folder.name


def test_another_damaged_file_is_not_the_row_s_business(finished_copy: Path) -> None:
    (finished_copy / "artifacts/search/summary.json").write_text("{}")
    row = row_after("retrain")
    assert "discretization_gap" not in row.data.metrics and "test_accuracy" in row.data.metrics
