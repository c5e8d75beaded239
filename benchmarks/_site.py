"""A small project with a Prefect server and workers of its own in a folder: what `make server`, `deploy` and `worker` start."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[1]
HOST = "site"  # name of this machine in queues and limits
MARK = "MSDARTS_SITE"  # variable by which the processes of a site are found, whatever became of their parents

# Parameters with which the whole chain is a matter of seconds.
TINY = {
    "search.epochs": 8, "search.channels": 2, "search.cells": 3, "search.images": 256, "search.batch_size": 32,
    "search.alpha.warmup_epochs": 1, "search.curvature_images": 0, "search.landscape": 3, "retrain.epochs": 4,
    "retrain.channels": 2, "retrain.cells": 3, "retrain.batch_size": 256, "export.int8_images": 0,
    "export.latency_repeats": 1,
}  # fmt: skip

# What the processes of a run have on their command lines.
ROLES = {
    "server": ("pipelines.server",),
    "worker": ("worker", "start"),
    "flow": ("prefect.engine",),
    "dvc": ("dvc", "repro"),
    "stage": ("stages.",),
}


class Site:
    """Project, database and logs in one folder. ``network``: its workers are in a network namespace (benchmarks/_network.py)."""

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", inside: Sequence[str] = (), database: str = ""
    ):
        self.folder, self.project = folder, folder / "project"
        self.address, self.inside = address, list(inside)
        self.port = free_port(address)
        self.api = f"http://{address}:{self.port}/api"
        self.started: dict[int, subprocess.Popen[bytes]] = {}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
        }
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "MSDARTS_HOST": HOST,
            "OMP_NUM_THREADS": "1",
            MARK: str(folder),
            **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}),
        }

    @contextlib.contextmanager
    def client(self, retries: int = 0) -> Iterator[SyncPrefectClient]:
        """A client that raises httpx.HTTPError while the server is away, unless told otherwise at once."""
        with (
            temporary_settings({PREFECT_API_URL: self.api, PREFECT_CLIENT_MAX_RETRIES: retries}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def start_server(self) -> None:
        command = [sys.executable, "-m", "pipelines.server", "--host", self.address, "--port", str(self.port)]
        self._start("server", command)

    def start_worker(self, gpu: int = 0) -> None:
        self._start("worker", [*self.inside, "deploy/worker", str(gpu)])

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started[process.pid] = process

    def reap(self) -> None:
        """Forgets the processes that have ended, so that none of them stays a zombie."""
        self.started = {pid: process for pid, process in self.started.items() if process.poll() is None}

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=2):
                return True
        except OSError:
            return False

    def wait(self, seconds: float = 180) -> None:
        """Waits until the server answers."""
        late = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > late:
                raise TimeoutError(f"{self.api} did not answer within {seconds:.0f} s")
            time.sleep(0.5)

    def deploy(self, gpus: int = 1) -> None:
        self.call("-m", "pipelines.deploy", "--gpus", str(gpus), "--host", HOST)

    def call(self, *arguments: str, folder: Path | None = None) -> str:
        """Runs Python in the project, or in one of its workspaces. Returns what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder or self.project, env=self.environment, stdout=subprocess.PIPE, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout

    def processes(self, role: str | None = None) -> list[psutil.Process]:
        """The living processes of the site, or those in one role."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(MARK) == str(self.folder)
                if (
                    ours
                    and process.status() != psutil.STATUS_ZOMBIE
                    and (role is None or _plays(process, role))
                ):
                    found.append(process)
        return found

    def stop(self) -> None:
        """Asks workers and server to end, then kills what is left."""
        for role in ("worker", "server"):
            for process in self.processes(role):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGTERM)
            psutil.wait_procs(self.processes(role), timeout=60)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self.started.values():
            process.wait()


def _plays(process: psutil.Process, role: str) -> bool:
    words = process.cmdline()
    if role == "stage":
        return any(word.startswith("stages.") for word in words[1:4])
    return all(any(part in word for word in words) for part in ROLES[role])


def make_project(folder: Path, changes: dict[str, Any]) -> None:
    """Copies the working tree into a git repository of its own, with other parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for key, value in changes.items():
        node, (*sections, name) = params, key.split(".")
        for section in sections:
            node = node[section]
        node[name] = value
    yaml.dump(params, folder / "params.yaml")
    git = ["git", "-c", "user.name=site", "-c", "user.email=site@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "project"]):
        subprocess.run([*git, *words], cwd=folder, check=True)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]
