"""Flow sweep: three seeds on a real server, one made to fail; what is missing runs again; the same sweep on Ray."""

from __future__ import annotations

import contextlib
import csv
import ipaddress
import json
import os
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
from prefect.states import Failed

from pipelines import sweep_report
from pipelines.graph import Stage, without_effect
from pipelines.sweep import (
    RUNNERS,
    RunnerName,
    _connected,
    _message,
    checked,
    main,
    task_runner,
    threads_for,
)
from pipelines.trials import Result, plan, winner
from pipelines.workspace import WORKSPACES
from stages.errors import UserError
from tests.pipelines.conftest import SMALL, Server, end, git_project
from tests.stages.conftest import ROOT, write_params

FAILING = "TEST_FAILING_SEED"  # variable: the search with this seed fails
CHAIN = [
    Stage("prepare", False, (), ("data",)),
    Stage("search", True, ("prepare",), ("search",)),
    Stage("discretize", False, ("search",), ("discretize",)),
]


def results(*accuracies: float | None) -> list[Result]:
    trials = plan(range(len(accuracies)), {}, {}, None)
    return [
        Result(trial, "failed" if score is None else "ran", score, "search: no" if score is None else "")
        for trial, score in zip(trials, accuracies, strict=True)
    ]


def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    class Away:
        def __enter__(self) -> None:
            raise ConnectionError("ray client\n connection timeout")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("it was never there")

    with pytest.raises(UserError) as error, _connected(Away()):  # type: ignore[arg-type]
        pass
    assert str(error.value).startswith("the cluster does not answer (ray client connection timeout); ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("search: the disk is full", "search: the disk is full"),
        (None, "its worker was lost, or could not import this project; the logs of the cluster say which"),
        (
            "Execution was interrupted: \x1b[36mray::run_trial()\x1b[39m\n  File ...\nModuleNotFoundError: No module named 'stages'\n",
            "Execution was interrupted: ray::run_trial() ... ModuleNotFoundError: No module named 'stages'",
        ),
    ],
)
def test_what_a_failed_trial_says_is_one_line(message: str | None, said: str) -> None:
    assert _message(Failed(message=message)) == said


def test_every_seed_meets_every_point_of_the_grid_in_the_order_that_ties_are_broken_by() -> None:
    trials = plan([7, 1], {"search.epochs": 2}, {"search.channels": [4, 8]}, 3)
    assert list(map(str, trials)) == [
        f"seed {seed} search.channels={channels}" for seed in (7, 1) for channels in (4, 8)
    ]
    final = {"search.epochs": 2, "search.channels": 4, "search.seed": 7}
    assert trials[0].final == final
    assert trials[0].changes == {**final, "retrain.epochs": 3}
    assert len({trial.name for trial in trials}) == 4


def test_the_winner_is_the_most_accurate_and_of_equals_the_first() -> None:
    def won(*accuracies: float | None) -> int | None:
        best = winner(results(*accuracies))
        return None if best is None else best.trial.seed

    assert won(0.5, 0.9, 0.7) == 1
    assert won(0.5, 0.9, 0.9) == 1
    assert won(None, 0.0, None) == 1
    assert won(None, None) is None


def test_what_trials_share_is_what_no_varied_key_reaches() -> None:
    def names(*keys: str) -> list[str]:
        return [stage.name for stage in without_effect(CHAIN, keys)]

    assert names("search.seed") == ["prepare"]
    assert names("discretize.epoch") == ["prepare", "search"]
    assert names("search.seed", "data.seed") == []
    assert names("retrain.epochs") == ["prepare", "search", "discretize"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--seeds 0", "seeds is 0; it should be how many"),
        ("--seeds 1,1", "seeds is [1, 1]"),
        ("--seeds some", "--seeds is 'some'"),
        ("--seeds=-1,", "search.seed is -1"),
        ("-S search.seed=3", "give its values as seeds"),
        ("-S search.sed=3", "did you mean search.seed?"),
        ("--grid search.channels", "write it as KEY=VALUE,VALUE"),
        ("--grid search.channels=4,4", "in which no value is there twice"),
        ("--grid search.channels=4,many", "search.channels is 'many'"),
        ("--grid search.channels=4 -S search.channels=8", "it should be in one of them"),
        ("--grid retrain.channels=4,8", "has no effect up to discretize"),
        ("--grid retrain.epochs=4,8 --rank-by short-retrain", "use ranking_epochs"),
        ("--grid export.opset=18,20 --rank-by short-retrain", "has no effect up to retrain"),
        ("--ranking-epochs 2", "rank_by should be short-retrain"),
        ("--rank-by short-retrain --ranking-epochs 0", "retrain.epochs is 0"),
        ("--workers 0", "workers is 0; it should be 1 or more"),
        ("--address ray://head:10001", "it should be ray or dask"),
        ("--runner ray --address ray://head:10001 --workers 3", "has its own"),
    ],
)
def test_a_wrong_request_is_one_line_and_starts_nothing(
    arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("pipelines.sweep.run_flow", lambda _: pytest.fail("the flow was started"))
    assert main(arguments.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: sweep: ")
    assert said in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_a_runner_that_is_not_installed_is_one_line(
    name: RunnerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, RUNNERS[name].module, None)
    with pytest.raises(
        UserError, match=f"runner is {name}, which is not installed .*; `make clusters` installs it"
    ):
        task_runner(name, None, None)


def test_a_short_retraining_is_a_tenth_of_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    request = checked(1, {"retrain.epochs": 40}, {"retrain.channels": [4, 8]}, "short-retrain", None)
    assert [trial.changes["retrain.epochs"] for trial in request.trials] == [4, 4]
    assert [trial.final["retrain.epochs"] for trial in request.trials] == [40, 40]
    assert request.chain[-1].name == "retrain"


def test_trials_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert threads_for(3) == {"OMP_NUM_THREADS": "2"}
    assert threads_for(20) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_for(3) == {"OMP_NUM_THREADS": "5"}


def test_table_and_picture_show_every_trial_with_the_winner_and_the_failed(tmp_path: Path) -> None:
    trials = plan([0, 1], {}, {"search.channels": [4, 8]}, None)
    found = [Result(trial, "ran", 0.5 + 0.1 * place) for place, trial in enumerate(trials[:3])]
    found.append(Result(trials[3], "failed", None, "search: a | b"))
    best = winner(found)
    picture = tmp_path / "trials.png"
    sweep_report.draw(picture, found, best, "search")
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = sweep_report.markdown(found, best, "search", picture, "http://page")
    lines = text.splitlines()
    assert "**seed 1 search.channels=4** has won" in lines[0]
    assert "| 1 | 4 | 0.7000 | **winner** |" in lines
    assert "| 1 | 8 | failed | search: a \\| b |" in lines
    rows = sweep_report.rows(found, best)
    assert [row["winner"] for row in rows] == [False, False, True, False]
    assert [row["search.channels"] for row in rows] == [4, 8, 4, 8]


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
    """A project in which sweeps run, as commands on the tests' server."""

    project: Path
    environment: Mapping[str, str]

    def sweep(self, *arguments: str, failing: int | None = None) -> str:
        """What the command wrote; it must succeed, and nothing of it may listen to other machines."""
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
        """The runs of a stage, of all pipelines, or of sweeps."""
        (experiment,) = [e for e in self.mlflow.search_experiments() if e.name == "msdarts"]
        return list(self.mlflow.search_runs([experiment.experiment_id], f"tags.stage = '{stage}'"))

    def table(self) -> list[dict[str, str]]:
        """The table of the only sweep."""
        (run,) = self.runs("sweep")
        files = Path(str(run.info.artifact_uri).removeprefix("file://"))
        assert (files / "trials.png").exists()
        return list(csv.DictReader((files / "trials.csv").read_text().splitlines()))

    def searched(self, row: Mapping[str, str]) -> float:
        """The validation accuracy of a trial, from what its search has written."""
        summary = self.project / WORKSPACES / row["experiment"] / "artifacts/search/summary.json"
        return json.loads(summary.read_text())["valid_accuracy"]

    def winner(self) -> dict[str, str]:
        (row,) = [row for row in self.table() if row["winner"] == "True"]
        return row

    def registered(self) -> list[str]:
        """The workspaces whose network was registered."""
        return sorted(
            path.parts[-3] for path in (self.project / WORKSPACES).glob("*/artifacts/registry.json")
        )


def new_project(folder: Path, server: Server) -> Swept:
    """A project of its own, whose search fails with the seed in a variable; that change is not committed."""
    git_project(folder)
    write_params(folder / "params.yaml", {**SMALL, "search.epochs": 4})
    search = folder / "stages/search.py"
    fails = f"""
    import os

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
    assert len(swept.runs("prepare")) == 1  # shared by all
    (sweep,) = swept.runs("sweep")
    children = {run.info.run_id for run in swept.runs("pipeline") if run.data.tags.get("mlflow.parentRunId") == sweep.info.run_id}  # fmt: skip
    assert children >= {row["run_id"] for row in rows if row["run_id"]}
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
    assert all("'register'" in line for line in started)  # which is always asked
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
