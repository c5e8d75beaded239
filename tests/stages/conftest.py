"""Small projects in which stages run: the real params.yaml with tiny sizes, and one MLflow store for all of them."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from ruamel.yaml import YAML
from sqlalchemy import event
from sqlalchemy.engine import Engine

from stages.images.data import ImageCard
from stages.images.params import METRIC
from stages.measuring import bench
from stages.plumbing import runtime
from tests.stages.processes import ROOT, environment

STAGES = ("prepare", "search", "discretize", "retrain", "export")


@event.listens_for(Engine, "connect")
def not_waiting_for_the_disk(connection: object, _: object) -> None:
    """Lets MLflow's SQLite commit without a sync, because a registration makes a hundred commits."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


TINY = {
    "search.epochs": 3,
    "search.channels": 2,
    "search.cells": 3,
    "search.images": 128,
    "search.batch_size": 32,
    "search.alpha.warmup_epochs": 1,
    "search.curvature_images": 16,
    "search.landscape": 3,
    "retrain.epochs": 3,
    "retrain.channels": 2,
    "retrain.cells": 3,
    "retrain.batch_size": 256,
    "export.latency_repeats": 1,
}


# Networks whose latency is measured in seconds, all of them together.
SMALL = {
    **TINY,
    "search.space": "nasbench201",
    "search.cells": 1,
    "retrain.cells": 1,
    "search.stages": 1,
    "retrain.stages": 1,
    "latency.budget_ms": 1000,
    "latency.samples": 60,
    "latency.held_out": 10,
    "latency.repeated": 4,
    "latency.rounds": 2,
    "latency.repeats": 2,
    "latency.warmup": 0,
}


def write_params(path: Path, changes: dict[str, Any]) -> None:
    """The project's params.yaml with some keys (dotted) changed; a value of ``...`` removes the key."""
    yaml = YAML(typ="safe")
    content = yaml.load(ROOT / "params.yaml")
    for key, value in changes.items():
        *sections, name = key.split(".")
        node = content
        for section in sections:
            node = node[section]
        if value is ...:
            del node[name]
        else:
            node[name] = value
    yaml.dump(content, path)


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, common: Path, request: pytest.FixtureRequest) -> str:
    """The address of an MLflow store that the small projects of this process share, because making one takes seconds.

    If a test needs the finished project, the store is a copy of the one with that project's runs.
    """
    if any("finished" in getattr(item, "fixturenames", ()) for item in request.session.items):
        original = _finished(common) / "mlflow.db"
    else:
        original = common / "empty.db"
        with FileLock(common / "empty.lock"):
            if not original.exists():
                MlflowClient(f"sqlite:///{common / 'making.db'}").search_experiments()
                (common / "making.db").rename(original)
    copy = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copy(original, copy)
    return f"sqlite:///{copy}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> Path:
    """An empty project folder with tiny parameters, which is the current folder."""
    write_params(tmp_path / "params.yaml", TINY)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    return tmp_path


@pytest.fixture
def run_stage() -> Callable[..., int]:
    """Runs a stage in this process, in the current folder; returns its exit status."""

    def run(name: str, *options: str, **arguments: str) -> int:
        return run_here(name, importlib.import_module(f"stages.{name}").main, *options, **arguments)

    return run


def run_here(name: str, main: Callable[..., None], *options: str, **arguments: str) -> int:
    """Runs the main function of a stage in this process, as ``python -m stages.NAME OPTIONS`` does; returns its exit status."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    words, sys.argv = sys.argv, [f"stages.{name}", *options]
    try:
        return runtime.run(name, main, **arguments)
    finally:
        sys.argv = words
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def finished(common: Path) -> Path:
    """A small project in which every stage up to export has run. Do not write to it; use ``finished_copy``."""
    return _finished(common)


def _finished(common: Path) -> Path:
    """Makes the finished project, or waits until another process of this test run has made it."""
    folder = common / "finished"
    with FileLock(common / "finished.lock"):
        if not (common / "finished.made").exists():
            shutil.rmtree(folder, ignore_errors=True)  # remains of a failed attempt
            folder.mkdir()
            run_in(folder, f"sqlite:///{folder / 'mlflow.db'}", TINY, *STAGES)
            (common / "finished.made").touch()
    return folder


def run_in(folder: Path, store: str, params: dict[str, Any], *stages: str) -> None:
    """Runs stages one after the other in one process, because a small stage spends half of its time on imports."""
    write_params(folder / "params.yaml", params)
    (folder / "data").mkdir()
    program = (
        "import sys; from importlib import import_module; from stages.plumbing import runtime\n"
        f"for name in {stages}:\n"
        "    sys.exit(1) if runtime.run(name, import_module(f'stages.{name}').main) else None"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment(store), check=True)


@pytest.fixture
def finished_copy(project: Path, finished: Path) -> Path:
    """The current folder, with a copy of the artifacts of the finished project."""
    shutil.copytree(finished / "artifacts", project / "artifacts")
    return project


@pytest.fixture
def named(finished_copy: Path, request: pytest.FixtureRequest) -> str:
    """A finished project and the name of its registered model, which no other test uses."""
    name = f"model-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    write_params(finished_copy / "params.yaml", {**TINY, "registry.name": name})
    return name


@pytest.fixture
def small(project: Path) -> Path:
    """A project whose networks are the smallest there are. Of its data, there is only what measuring needs."""
    (project / "artifacts" / "data").mkdir(parents=True)
    card = ImageCard(
        name="digits", counts={"train": 8, "val": 8, "test": 8}, sha256="0", image_shape=(8, 8, 1), mean=[0.3],
        std=[0.4], mirror=False, classes=[str(number) for number in range(10)],
    )  # fmt: skip
    card.write(project / "artifacts" / "data" / "data.json", METRIC)
    write_params(project / "params.yaml", SMALL)
    return project


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each call has measured."""
    calls: list[int] = []
    original = bench.measured

    def measured(networks: Sequence[bytes], *rest: Any) -> Any:
        calls.append(len(networks))
        return original(networks, *rest)

    monkeypatch.setattr(bench, "measured", measured)
    return calls
