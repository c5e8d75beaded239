"""Promotion on a real MLflow server, which is killed in between, and two promotions at once without a lock file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.stages.conftest import ROOT, TINY, write_params
from tests.stages.networks import export, linear

RunStage = Callable[..., int]


class Server:
    """An `mlflow server` on loopback with its own database and artifacts. It can be killed and started again."""

    def __init__(self, folder: Path, *options: str, **variables: str):
        self.options, self.variables = options, variables
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the server answers."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
            *self.options,
        ]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = (
            "false"  # would start eight processes that the tests do not need
        )
        variables |= self.variables
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=variables, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < end, (self.folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)

    def kill(self) -> None:
        """Ends the server as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(started: Server, finished_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server that the project in the current folder uses. Requests to a dead server fail soon."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    return started


def champions(server: Server, name: str) -> tuple[int, int | None]:
    """The versions that are champion and previous champion."""
    aliases = MlflowClient(tracking_uri=server.uri).get_registered_model(name).aliases
    previous = aliases.get("previous_champion")
    return int(aliases["champion"]), None if previous is None else int(previous)


def test_killed_in_the_middle_of_promotion(
    server: Server,
    run_stage: RunStage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "killed"
    write_params(Path("params.yaml"), {**TINY, "registry.name": name})
    export(linear(20))
    assert run_stage("register") == 0
    move = MlflowClient.set_registered_model_alias
    for version, pixels, moved in ((2, 40, False), (3, 64, True)):

        def moving(client: MlflowClient, model: str, alias: str, to: str, moved: bool = moved) -> None:
            if alias == "champion" and not moved:
                server.kill()
            move(client, model, alias, to)
            if alias == "champion" and moved:
                server.kill()

        export(linear(pixels))
        capsys.readouterr()
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, "set_registered_model_alias", moving)
            assert run_stage("register") == 1
        assert server.process.poll() is not None
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: register: MLflow at {server.uri} failed: ")
        assert json.loads(Path("artifacts/registry.json").read_text())["version"] == version - 1

        server.start()
        assert champions(server, name)[0] == (version if moved else version - 1)
        assert run_stage("register") == 0
        assert champions(server, name) == (version, version - 1)
        report = json.loads(Path("artifacts/registry.json").read_text())
        assert (report["version"], report["promoted"]) == (version, True)
        assert len(MlflowClient(tracking_uri=server.uri).search_model_versions(f"name = '{name}'")) == version


def test_two_promotions_at_once_leave_the_better_one(
    server: Server, run_stage: RunStage, tmp_path: Path
) -> None:
    write_params(Path("params.yaml"), {**TINY, "registry.name": "two"})
    export(linear(20))
    assert run_stage("register") == 0
    here, processes, folders = Path.cwd(), [], [tmp_path / "worse", tmp_path / "better"]
    for folder, pixels in zip(folders, (40, 64), strict=True):
        folder.mkdir()
        shutil.copytree("artifacts", folder / "artifacts")
        shutil.copy("params.yaml", folder)
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
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    worse, better = (json.loads((folder / "artifacts/registry.json").read_text()) for folder in folders)
    assert better["test_accuracy"] > worse["test_accuracy"]
    assert better["promoted"] is True
    assert champions(server, "two")[0] == better["version"]
    assert worse["promoted"] or worse["champion_after"] == better["version"]
