"""One Prefect server on loopback and one small project for all tests of this folder; workers as users start them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.stages.conftest import ROOT, TINY, write_params

HOST = "tests"  # the name of this machine in queues and limits
SMALL = {**TINY, "search.epochs": 8, "search.images": 256, "search.curvature_images": 0, "retrain.epochs": 1,
         "export.int8_images": 0}  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running Prefect server, and the folder of the project whose deployments it holds."""

    client: SyncPrefectClient
    project: Path
    environment: dict[str, str]

    def start(self, params: dict[str, Any] | None = None, **parameters: Any) -> UUID:
        """Schedules a new run of nas/on-demand, for any worker."""
        deployment = self.client.read_deployment_by_name("nas/on-demand")
        run = self.client.create_flow_run_from_deployment(
            deployment.id, parameters={"params": params or {}, **parameters}
        )
        return run.id

    def run(self, id: UUID) -> FlowRun:
        return self.client.read_flow_run(id)

    def tasks(self, id: UUID) -> dict[str, TaskRun]:
        """The task runs by the name of their stage."""
        found = self.client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[id])))
        return {task.name: task for task in found}

    def lines(self, id: UUID) -> list[tuple[float, str]]:
        """The log of a run: seconds since 1970, and the line."""
        logs = self.client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[id])), limit=200)
        return sorted((log.timestamp.timestamp(), log.message) for log in logs)

    def ended(self, id: UUID, seconds: float = 240) -> FlowRun:
        """The run, once its state is final."""
        return self.when(id, lambda run: run.state is not None and run.state.is_final(), seconds)

    def when(self, id: UUID, condition: Callable[[FlowRun], bool], seconds: float = 120) -> FlowRun:
        end = time.monotonic() + seconds
        while not condition(run := self.run(id)):
            assert time.monotonic() < end, (run.state, self.lines(id)[-5:])
            time.sleep(0.5)
        return run

    def said(self, id: UUID, text: str, seconds: float = 120) -> None:
        """Waits until a line of the run's log contains the text."""
        self.when(id, lambda run: any(text in line for _, line in self.lines(id)), seconds)


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes whose current folder is within ``folder``."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def none_is_left(folder: Path, seconds: float = 30) -> bool:
    """Whether all processes in the folder end within that time."""
    late = time.monotonic() + seconds
    while processes_in(folder):
        if time.monotonic() > late:
            return False
        time.sleep(0.2)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process: subprocess.Popen[Any]) -> None:
    """Kills a process and everything that it started."""
    tree = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def git_project(folder: Path) -> None:
    """A copy of the working tree in a git repository of its own, with tiny parameters."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    write_params(folder / "params.yaml", SMALL)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "project"]):
        subprocess.run([*git, *command], cwd=folder, check=True)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the server's deployments belong to."""
    folder = tmp_path_factory.mktemp("flow") / "project"
    git_project(folder)
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of all processes of these tests: nothing refers to the user's own Prefect or MLflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        # In memory, with one connection: a file with several writers sometimes stalls for a minute.
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true&check_same_thread=false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MSDARTS_HOST": HOST,
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def server(project: Path, environment: dict[str, str]) -> Iterator[Server]:
    """A Prefect server with the project deployed, as `make server` and `make deploy` do it."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {**environment, "PREFECT_API_URL": api}
    log = (project.parent / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.server", "--port", str(port)],
        cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(f"{api}/health", process)
        subprocess.run(
            [sys.executable, "-m", "pipelines.deploy", "--gpus", "1", "--host", HOST],
            cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            yield Server(client, project, environment)
    finally:
        end(process)
        log.close()


def wait_for(address: str, process: subprocess.Popen[Any]) -> None:
    for _ in range(180):
        assert process.poll() is None, "the server ended at its start"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.5)
    pytest.fail(f"{address} did not answer within 90 s")


@pytest.fixture(scope="session")
def workers(server: Server) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """The workers that ``new_worker`` has started, by process id; all are killed at the end."""
    started: dict[int, subprocess.Popen[bytes]] = {}
    try:
        yield started
    finally:
        for process in started.values():
            end(process)


@pytest.fixture(scope="session")
def new_worker(
    server: Server, workers: dict[int, subprocess.Popen[bytes]]
) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts a worker for GPU 0 of this host (which need not exist). Two are started at once."""

    def start() -> subprocess.Popen[bytes]:
        with (server.project.parent / "workers.log").open("a") as log:
            process = subprocess.Popen(
                ["deploy/worker", "0"],
                cwd=server.project,
                env=server.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        workers[process.pid] = process
        return process

    start()
    start()
    return start
