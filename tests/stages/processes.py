"""Runs stages in their own processes: as a user types them or, faster, forked from a process that has imported all."""

from __future__ import annotations

import csv
import functools
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Thread
from typing import IO, Protocol

import pytest

from models.training.loop import DATA_WAIT
from stages.plumbing.runtime import STATE

ROOT = Path(__file__).resolve().parents[2]
# What the forking process imports in advance, because importing takes longer than the work of a small stage.
PRELOADED = (
    "tests.stages.processes",
    "stages.search",
    "stages.retrain",
    "sklearn.model_selection",
    "matplotlib.figure",
)


class Process(Protocol):
    """What tests need from a running stage. ``subprocess.Popen`` with text pipes fulfils it."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    def send_signal(self, number: int) -> None: ...
    def kill(self) -> None: ...
    def communicate(self, timeout: float | None = None) -> tuple[str, str]: ...


Start = Callable[[str, Path, str], Process]  # stage, project folder, MLflow store


def environment(store: str) -> dict[str, str]:
    """The environment variables of a stage in these tests."""
    own = {"MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "tests", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1"}


def start(stage: str, folder: Path, store: str) -> subprocess.Popen[str]:
    """``python -m stages.STAGE`` in a folder: the real command."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"stages.{stage}"],
        cwd=folder,
        env=environment(store),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fork(stage: str, folder: Path, store: str) -> Process:
    """The same without seconds of imports: a child of the forking process runs the module as ``__main__``."""
    return Forked(stage, folder, environment(store))


class Forked:
    """A forked stage, with those methods of ``subprocess.Popen`` that Process lists."""

    def __init__(self, stage: str, folder: Path, variables: dict[str, str]):
        context = _forking()
        pipes = [context.Pipe(duplex=False) for _ in ("stdout", "stderr")]
        self._process = context.Process(
            target=_run, args=(stage, folder, variables, *(writing for _, writing in pipes))
        )
        self._process.start()
        self.stdout, self._stderr = (os.fdopen(os.dup(reading.fileno())) for reading, _ in pipes)
        for reading, writing in pipes:
            reading.close()
            writing.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Reads both streams to their ends and waits for the process."""
        read: dict[str, str] = {}
        streams = {"stdout": self.stdout, "stderr": self._stderr}
        threads = [
            Thread(target=lambda name=name, stream=stream: read.update({name: stream.read()}), daemon=True)
            for name, stream in streams.items()
        ]
        for thread in threads:
            thread.start()
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"stages in {self.pid}", timeout or 0)
        for thread in threads:
            thread.join(timeout)
        for stream in streams.values():
            stream.close()
        return read["stdout"], read["stderr"]


@functools.cache
def _forking() -> ForkServerContext:
    """Starts the process that forks stages; it ends with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the forking process imports with it
        forkserver.ensure_running()
    return context


def _run(
    stage: str, folder: Path, variables: dict[str, str], stdout: Connection, stderr: Connection
) -> None:  # in the forked process
    for connection, number in ((stdout, 1), (stderr, 2)):
        os.dup2(connection.fileno(), number)
        connection.close()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = [f"stages.{stage}"]
    sys.modules.pop(f"stages.{stage}", None)  # runpy warns about a module that it would run a second time
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


def after_epoch(process: Process, epoch: int) -> None:
    """Waits until the stage has printed the line of that epoch."""
    assert process.stdout is not None
    for line in process.stdout:
        if f"epoch {epoch}/" in line:
            return
    raise AssertionError(f"the stage ended before epoch {epoch}: {process.communicate()[1]}")


def checkpoints(folder: Path, stage: str) -> list[Path]:
    """The checkpoints that a stage keeps for its next attempt."""
    return sorted(path for path in (folder / STATE / stage).iterdir() if path.is_dir())


def contents(folder: Path) -> dict[str, bytes]:
    """The artifacts that hold results. Pictures are drawn from them and left out."""
    return {path.name: repeatable(path) for path in sorted(folder.iterdir()) if path.suffix != ".png"}


def repeatable(path: Path) -> bytes:
    """The bytes of a file; without its column of time, in which two equal runs differ, if it is a history."""
    if path.name != "history.csv":
        return path.read_bytes()
    rows = list(csv.reader(path.read_text().splitlines()))
    kept = [column for column, name in enumerate(rows[0]) if name != DATA_WAIT]
    return "\n".join(",".join(row[column] for column in kept) for row in rows).encode()
