"""A project that was moved or copied serves its own networks, and a registry that hangs is given up soon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.errors import ModelError
from serving.registry import present_place

ROOT = Path(__file__).resolve().parents[2]
BELOW = "mlruns/models/m-1/artifacts"


def test_a_project_uses_its_own_files_wherever_it_is(tmp_path: Path) -> None:
    old, new = tmp_path / "old mlruns", tmp_path / "new"
    for project in (old, new):
        (project / BELOW).mkdir(parents=True)
    location = (old / BELOW).as_uri()
    assert present_place(location, old, "") is None  # as MLflow says
    assert present_place(location, new, "") == new / BELOW  # a copy, although the original exists
    assert present_place(str(old / BELOW), new, "") == new / BELOW
    elsewhere = tmp_path / "shared"
    elsewhere.mkdir()
    assert present_place(elsewhere.as_uri(), new, "") is None
    assert present_place("s3://bucket/mlruns/models/m-1", new, "") is None


def test_files_that_are_nowhere_are_named(tmp_path: Path) -> None:
    gone = tmp_path / "old" / BELOW
    with pytest.raises(ModelError) as error:
        present_place(gone.as_uri(), tmp_path / "new", "models:/net/1")
    assert str(error.value).startswith(f"models:/net/1: its files were in {gone}, which is gone")
    assert "register the network again" in str(error.value)


@pytest.mark.slow
def test_a_registry_that_hangs_fails_within_ten_seconds() -> None:
    """In a process of its own, as the server's, because the stages, which other tests import, are more patient."""
    program = (
        "import time\n"
        "from serving.errors import ModelError\n"
        "from serving.registry import Registry\n"
        "import mlflow.artifacts\n"  # what a server has imported, which takes seconds on a busy machine
        "start = time.monotonic()\n"
        "try:\n"
        "    Registry('net', 'champion', threads=1).current()\n"
        "except ModelError as error:\n"
        "    print(time.monotonic() - start, error)\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**kept, "MLFLOW_TRACKING_URI": place, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
    seconds, _, message = done.stdout.partition(" ")
    assert message.startswith("models:/net@champion: ")
    assert float(seconds) < 10
