"""Flow sweep on a real server: three seeds, one made to fail; a second sweep runs what is missing; the same on Ray."""

from __future__ import annotations

import contextlib
import csv
import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from pipelines.workspace import WORKSPACES
from tests.pipelines.conftest import SMALL, Server, end, git_project
from tests.stages.conftest import write_params

FAILING = "TEST_FAILING_SEED"  # variable: the search with this seed fails


def listening(pid: int) -> set[str]:
    """The addresses that a process and its descendants listen at."""
    found: set[str] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                sockets = member.net_connections("inet")
                found |= {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


@dataclass(frozen=True)
class Swept:
    """A project in which sweeps run as commands, on the tests' server."""

    project: Path
    environment: Mapping[str, str]

    def sweep(self, *arguments: str, failing: int | None = None) -> str:
        """The output of the command, which must succeed; none of its processes may listen to other machines."""
        environment = {**self.environment, **({} if failing is None else {FAILING: str(failing)})}
        command = [sys.executable, "-m", "pipelines.sweep", *arguments]
        with (self.project.parent / "sweep.log").open("w+") as log:
            process = subprocess.Popen(
                command, cwd=self.project, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                while process.poll() is None:
                    assert all(map(is_loopback, listening(process.pid))), listening(process.pid)
                    time.sleep(1)
            finally:
                end(process)
            log.seek(0)
            said = log.read()
        assert process.returncode == 0, said[-3000:]
        return said

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.project / 'mlflow.db'}")

    def runs(self, stage: str) -> list[Run]:
        """All MLflow runs of a stage, or of ``pipeline`` or ``sweep``."""
        (experiment,) = [e for e in self.mlflow.search_experiments() if e.name == "msdarts"]
        return list(self.mlflow.search_runs([experiment.experiment_id], f"tags.stage = '{stage}'"))

    def table(self) -> list[dict[str, str]]:
        """The table of the sweep, of which there is one."""
        (run,) = self.runs("sweep")
        files = Path(str(run.info.artifact_uri).removeprefix("file://"))
        assert (files / "trials.png").exists()
        return list(csv.DictReader((files / "trials.csv").read_text().splitlines()))

    def searched(self, row: Mapping[str, str]) -> float:
        """The validation accuracy of a trial, as its search wrote it."""
        summary = self.project / WORKSPACES / row["experiment"] / "artifacts/search/summary.json"
        return json.loads(summary.read_text())["valid_accuracy"]

    def winner(self) -> dict[str, str]:
        (row,) = [row for row in self.table() if row["winner"] == "True"]
        return row

    def registered(self) -> list[str]:
        """The names of the workspaces whose network was registered."""
        return sorted(
            path.parts[-3] for path in (self.project / WORKSPACES).glob("*/artifacts/registry.json")
        )


def new_project(folder: Path, server: Server) -> Swept:
    """A project whose search fails with the seed in a variable; that change of the code is not committed."""
    git_project(folder)
    write_params(folder / "params.yaml", {**SMALL, "search.epochs": 4})
    search = folder / "stages/search.py"
    fails = f"""
    import os

    from stages.errors import UserError

    if os.environ.get("{FAILING}") == str(params.search.seed):
        raise UserError("this seed is made to fail")
"""
    head = "def main(params: Params) -> None:\n"
    assert head in search.read_text()
    search.write_text(search.read_text().replace(head, head + fails))
    return Swept(folder, server.environment)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Swept:
    """A sweep of three seeds, the second made to fail."""
    made = new_project(tmp_path_factory.mktemp("sweep") / "project", server)
    made.sweep("--seeds", "3", failing=1)
    return made


def test_a_failed_trial_stops_no_other_and_the_best_alone_is_registered(swept: Swept) -> None:
    rows = swept.table()
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    assert [row["state"] for row in rows] == ["ran", "failed", "ran"]
    assert [row["error"] for row in rows] == ["", "search: this seed is made to fail", ""]
    scores = {row["seed"]: swept.searched(row) for row in rows if row["state"] == "ran"}
    assert {row["seed"]: float(row["valid_accuracy"]) for row in rows if row["valid_accuracy"]} == scores
    assert swept.winner()["seed"] == max(scores, key=lambda seed: scores[seed])
    assert swept.registered() == [swept.winner()["experiment"]]
    assert len(swept.mlflow.search_model_versions("name = 'msdarts'")) == 1
    assert len(swept.runs("retrain")) == 1
    assert len(swept.runs("prepare")) == 1  # all trials share it
    (sweep,) = swept.runs("sweep")
    children = {run.info.run_id for run in swept.runs("pipeline") if run.data.tags.get("mlflow.parentRunId") == sweep.info.run_id}  # fmt: skip
    assert children >= {row["run_id"] for row in rows if row["run_id"]}
    for row in filter(lambda row: row["run_id"], rows):
        trial = swept.mlflow.get_run(row["run_id"])
        assert (trial.info.run_name, trial.data.params["search.seed"]) == (row["experiment"], row["seed"])
    assert str(sweep.info.run_name).startswith("digits-ms-darts-sweep-seeds3-")
    assert sweep.info.status == "FINISHED"
    assert "test_accuracy" in sweep.data.metrics


def test_trials_are_experiments_of_dvc(swept: Swept) -> None:
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    shown = subprocess.run(command, cwd=swept.project, capture_output=True, text=True, check=True).stdout
    (commit,) = [entry for entry in json.loads(shown) if entry["rev"] != "workspace"]
    names = {experiment["name"] for experiment in commit["experiments"]}
    assert names == {row["experiment"] for row in swept.table() if row["state"] != "failed"}


def test_prefect_shows_the_table(swept: Swept, server: Server) -> None:
    found = server.client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["sweep"]))
    )
    texts = [str(artifact.data) for artifact in found]
    assert any("search: this seed is made to fail" in text and "**winner**" in text for text in texts)


def test_the_same_sweep_again_runs_what_is_missing_and_then_nothing(swept: Swept) -> None:
    before = {run.info.run_id for run in swept.runs("search")}
    swept.sweep("--seeds", "3")
    assert [row["state"] for row in swept.table()] == ["cached", "ran", "cached"]
    new = [run for run in swept.runs("search") if run.info.run_id not in before]
    assert [run.data.params["seed"] for run in new] == ["1"]
    scores = {row["seed"]: swept.searched(row) for row in swept.table()}
    assert swept.winner()["seed"] == max(scores, key=lambda seed: scores[seed])
    runs = {
        stage: len(swept.runs(stage)) for stage in ("prepare", "search", "discretize", "retrain", "register")
    }
    said = swept.sweep("--seeds", "3")
    assert [row["state"] for row in swept.table()] == ["cached", "cached", "cached"]
    assert {stage: len(swept.runs(stage)) for stage in runs} == runs
    started = [line for line in said.splitlines() if "Running stage '" in line]
    always_called = ("measure", "register", "report")
    assert {line.split("'")[1] for line in started} <= set(always_called)
    assert len(swept.runs("sweep")) == 1


def test_on_ray_the_same_trial_wins(swept: Swept, server: Server, tmp_path: Path) -> None:
    pytest.importorskip("prefect_ray", reason="Ray is not installed; `make clusters` installs it")
    on_ray = new_project(tmp_path / "project", server)
    said = on_ray.sweep("--seeds", "3", "--runner", "ray", "--workers", "2", failing=1)
    assert "Creating a local Ray instance" in said
    rows = on_ray.table()
    assert [row["state"] for row in rows] == ["ran", "failed", "ran"]
    scores = {row["seed"]: swept.searched(row) for row in rows if row["state"] == "ran"}
    assert {row["seed"]: on_ray.searched(row) for row in rows if row["state"] == "ran"} == scores
    assert on_ray.winner()["seed"] == max(scores, key=lambda seed: scores[seed])
    assert on_ray.registered() == [on_ray.winner()["experiment"]]
