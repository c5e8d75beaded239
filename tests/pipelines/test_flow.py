"""Flow nas on a real server with real workers: scheduled, killed, cancelled, refused, and two at once.

The scheduler makes one run of the whole chain. The other runs search in workspaces of their own, which begin with the prepared
images of the first. The run whose worker is killed comes second: the others fill the time until its silence is noticed.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from mlflow import MlflowClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule

from pipelines.nas import BAD_INPUT, CACHED
from pipelines.workspace import WORKSPACES, experiment_name
from tests.pipelines.conftest import HOST, SMALL, Server, end, none_is_left, processes_in
from tests.stages.conftest import ROOT, write_params
from tests.stages.test_interrupt import contents

KILLED = {"search.seed": 3}


@pytest.fixture(scope="session")
def scheduled(server: Server, new_worker: Callable[[], object]) -> FlowRun:
    """A run of the whole chain that the scheduler made for the deployment nightly; it has ended."""
    deployment = server.client.read_deployment_by_name("nas/nightly")
    soon = datetime.now(UTC) + timedelta(seconds=8)  # the scheduler looks every 5 s
    often = IntervalSchedule(interval=timedelta(seconds=30), anchor_date=soon)
    (schedule,) = server.client.create_deployment_schedules(deployment.id, [(often, True)])
    late = time.monotonic() + 180
    while not (
        runs := [run for run in server.client.read_flow_runs() if run.auto_scheduled and run.start_time]
    ):
        assert time.monotonic() < late, "the scheduler made no run that a worker took"
        time.sleep(0.5)
    server.client.delete_deployment_schedule(deployment.id, schedule.id)
    return server.ended(runs[0].id, 400)


def stage_process(folder: Path, stage: str) -> psutil.Process:
    """The process of a stage that runs in a workspace."""
    (found,) = [process for process in processes_in(folder) if f"stages.{stage}" in process.cmdline()]
    return found


def folder_of(server: Server, params: dict[str, Any]) -> Path:
    return server.project / WORKSPACES / experiment_name(params)


@pytest.fixture(scope="session")
def killed(
    server: Server,
    scheduled: FlowRun,
    workers: dict[int, subprocess.Popen[bytes]],
    new_worker: Callable[[], object],
) -> tuple[UUID, float]:
    """A search whose worker was killed in the middle, with everything it had started: the run, and the time of the kill."""
    id = server.start(KILLED, target="search")
    server.said(id, "search epoch 2/")
    ancestors = {process.pid for process in stage_process(folder_of(server, KILLED), "search").parents()}
    (pid,) = ancestors & workers.keys()
    end(workers.pop(pid))
    assert none_is_left(folder_of(server, KILLED))
    new_worker()
    return id, time.monotonic()


def test_the_scheduler_makes_a_run_that_a_worker_executes(server: Server, scheduled: FlowRun) -> None:
    assert scheduled.auto_scheduled
    assert scheduled.state is not None
    assert scheduled.state.is_completed(), (scheduled.state.message, server.lines(scheduled.id)[-5:])
    tasks = server.tasks(scheduled.id)
    assert tasks.keys() >= {"prepare", "search", "discretize", "retrain", "export", "register"}
    assert {task.state.message for task in tasks.values() if task.state} == {"ran"}
    assert (server.project / "artifacts/registry.json").exists()
    command = ["git", "status", "--porcelain"]
    status = subprocess.run(command, cwd=server.project, capture_output=True, text=True, check=True)
    assert status.stdout.split() == ["??", "dvc.lock"]


def test_progress_and_summary_are_artifacts_of_the_run(server: Server, scheduled: FlowRun) -> None:
    found = server.client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[scheduled.id]))
    )
    artifacts = {artifact.key: artifact for artifact in found}
    assert artifacts["search-progress"].data == 100
    assert f"search epoch {SMALL['search.epochs']}/" in str(artifacts["search-progress"].description)
    summary = str(artifacts["nas"].data)
    assert "| test accuracy | 0." in summary
    assert "data:image/png;base64," in summary
    assert "/#/models/msdarts/versions/1)" in summary
    assert "/runs/" in summary


def test_a_killed_worker_leaves_no_process_and_a_run_that_seems_to_go_on(
    server: Server, killed: tuple[UUID, float]
) -> None:
    id, _ = killed
    assert processes_in(folder_of(server, KILLED)) == []
    state = server.run(id).state
    assert state is not None
    assert state.is_running()  # a test below sees what happens when its silence is noticed


def in_plain_shell(server: Server, *words: str) -> str:
    """Types a command of Prefect's in a project's folder whose prefect.toml names the server, and nothing else does."""
    folder = server.project.parent / "plain"
    folder.mkdir(exist_ok=True)
    address = server.environment["PREFECT_API_URL"]
    settings = re.sub(
        r'^url = "[^"]*"', f'url = "{address}"', (ROOT / "prefect.toml").read_text(), flags=re.M
    )
    assert address in settings
    (folder / "prefect.toml").write_text(settings)
    variables = {name: value for name, value in server.environment.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        ["prefect", *words], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_killed_stage_is_tried_again_and_a_cancelled_run_leaves_no_process(
    server: Server, killed: tuple[UUID, float]
) -> None:
    params = {"search.seed": 4, "search.epochs": 60}
    started = in_plain_shell(
        server,
        *("deployment", "run", "nas/on-demand"),
        *("--param", f"params={json.dumps(params)}", "--param", "target=search"),
    )
    (id,) = map(UUID, re.findall(r"UUID: (\S+)", started))
    folder = folder_of(server, params)
    server.said(id, "search epoch 2/")
    stage_process(folder, "search").kill()
    server.said(id, "search: resumes after epoch")
    server.said(id, "search epoch 5/")
    assert processes_in(folder) != []
    in_plain_shell(server, "flow-run", "cancel", str(id))
    cancelled = server.ended(id)
    assert cancelled.state is not None
    assert cancelled.state.is_cancelled()
    assert none_is_left(folder), processes_in(folder)
    search = server.tasks(id)["search"]
    assert search.run_count == 2
    # The worker prints this line.
    said = (server.project.parent / "workers.log").read_text()
    assert "search: killed by SIGKILL" in said, said
    assert server.client.read_global_concurrency_limit_by_name(f"{HOST}-gpu-0").active_slots == 0


def test_bad_input_is_not_tried_again_and_its_line_is_the_message(server: Server, scheduled: FlowRun) -> None:
    images = server.project.parent / "images.npz"
    images.write_text("no images")
    stage = server.start({"data.name": "npz", "data.root": str(images)}, target="prepare")
    unknown = server.start({"search.sed": 1})
    refused = server.ended(stage).state
    assert refused is not None
    assert refused.name == BAD_INPUT
    message = str(refused.message)
    assert message.startswith("prepare: ")
    assert str(images) in message
    assert "\n" not in message
    assert server.tasks(stage)["prepare"].run_count == 1
    state = server.ended(unknown).state
    assert state is not None
    assert (state.name, state.is_failed()) == (BAD_INPUT, True)
    assert "search.sed is unknown; did you mean search.seed?" in str(state.message)
    assert server.tasks(unknown) == {}


def test_two_runs_with_one_gpu_do_not_overlap(server: Server, killed: tuple[UUID, float]) -> None:
    short = {"search.epochs": 2}
    runs = [server.start({**short, "search.seed": seed}, target="search") for seed in (5, 6)]
    spans = []
    for id in runs:
        state = server.ended(id).state
        assert state is not None
        assert state.is_completed(), state.message
        server.said(id, "search: discretization gap")  # the last lines may arrive after the state
        lines = server.lines(id)
        begin = next(when for when, line in lines if line.startswith("Running stage 'search'"))
        last = next(when for when, line in lines if line.startswith("search: discretization gap"))
        spans.append((begin, last, server.tasks(id)["search"]))
    (_, first_end, _), (second_begin, _, waited) = sorted(spans, key=lambda span: span[0])
    assert first_end < second_begin
    assert waited.start_time is not None
    assert waited.start_time.timestamp() < first_end  # it had started, and waited


def test_a_run_whose_worker_died_is_crashed_and_the_next_one_resumes_it(
    server: Server, killed: tuple[UUID, float], environment: dict[str, str], tmp_path: Path
) -> None:
    id, died = killed
    crashed = server.ended(id, max(1.0, died + 120 - time.monotonic()))
    assert crashed.state is not None
    assert crashed.state.is_crashed()
    assert "the next run goes on with the stage that was running" in str(crashed.state.message)
    next_run = server.start(KILLED, target="search")

    write_params(tmp_path / "params.yaml", {**SMALL, **KILLED})
    (tmp_path / "data").mkdir()
    shutil.copytree(server.project / "artifacts/data", tmp_path / "artifacts/data")
    undisturbed = {**environment, "PYTHONPATH": str(server.project)}
    subprocess.run([sys.executable, "-m", "stages.search"], cwd=tmp_path, env=undisturbed, check=True)

    state = server.ended(next_run).state
    assert state is not None
    assert state.is_completed(), state.message
    assert any("search: resumes after epoch" in line for _, line in server.lines(next_run))
    result = contents(folder_of(server, KILLED) / "artifacts/search")
    assert result == contents(tmp_path / "artifacts/search")
    assert result != contents(server.project / "artifacts/search")  # another seed, another result
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"],
        cwd=server.project, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    name = experiment_name(KILLED)
    assert name in listed.stdout.split()
    assert server.run(id).name == server.run(next_run).name == name
    mlflow = MlflowClient(f"sqlite:///{server.project / 'mlflow.db'}")
    (experiment,) = [each for each in mlflow.search_experiments() if each.name == "msdarts"]
    (row,) = mlflow.search_runs(
        [experiment.experiment_id], f"tags.dvc_experiment = '{name}'"
    )  # of both flow runs
    assert (row.info.run_name, row.info.status) == (name, "FINISHED")
    assert row.data.tags["prefect_flow_run"] == str(next_run)
    assert row.data.params == {"search.seed": "3"} and "discretization_gap" in row.data.metrics


def test_an_interrupted_flow_leaves_no_process_and_resumes_the_next_time(
    server: Server, scheduled: FlowRun
) -> None:
    params = {"search.seed": 7, "search.epochs": 60}
    options = [word for key, value in params.items() for word in ("-S", f"{key}={value}")]
    command = [sys.executable, "-m", "pipelines.nas", *options, "--target", "search"]
    folder = folder_of(server, params)

    def interrupted(interrupt: Callable[[int], None], environment: dict[str, str]) -> tuple[int, str]:
        process = subprocess.Popen(
            command, cwd=server.project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            before = "".join(itertools.takewhile(lambda line: "search epoch" not in line, lines))
            assert len(processes_in(folder)) >= 2, before  # DVC and the stage
            interrupt(process.pid)
            status = process.wait(60)
            assert processes_in(folder) == []
            return status, before + process.stdout.read()
        finally:
            end(process)
            process.stdout.close()

    # Ctrl-C in a terminal, where the flow has a server of its own, which hears it too.
    alone = {name: value for name, value in server.environment.items() if name != "PREFECT_API_URL"}
    status, said = interrupted(lambda pid: os.killpg(pid, signal.SIGINT), alone)
    assert status == 130, said
    assert "search: resumes after epoch" not in said
    assert "Traceback" not in said
    status, said = interrupted(lambda pid: os.kill(pid, signal.SIGTERM), server.environment)
    assert status == 143, said
    assert "search: resumes after epoch" in said


def test_a_run_with_nothing_to_do_costs_little(server: Server, killed: tuple[UUID, float]) -> None:
    def seconds(*command: str, **variables: str) -> float:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=server.project, env={**server.environment, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(CACHED) + done.stderr.count(CACHED) >= (
            5 if "pipelines.nas" in command else 0
        )
        return time.monotonic() - started

    plain = seconds("dvc", "repro")
    with_server = seconds("pipelines.nas")
    print(f"dvc repro {plain:.1f} s, flow {with_server:.1f} s; load {os.getloadavg()[0]:.1f}")
    assert with_server - plain < 20  # 5 on an idle machine; this one also runs tests


def test_the_flow_runs_with_nothing_started(server: Server, scheduled: FlowRun, tmp_path: Path) -> None:
    alone = {name: value for name, value in server.environment.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "pipelines.nas", "--target", "export"]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=server.project, env={**alone, "PREFECT_HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    seconds = time.monotonic() - started
    print(f"nothing started: {seconds:.1f} s; load {os.getloadavg()[0]:.1f}")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(CACHED) == 5
    assert seconds < 100  # 25 on an idle machine
