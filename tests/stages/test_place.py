"""Paths of the project that break MLflow or DVC are refused before any work, and all others work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from stages.errors import UserError
from stages.plumbing import place
from stages.plumbing.settings import load
from tests.stages.conftest import TINY, write_params
from tests.stages.processes import ROOT

SERVER = "http://127.0.0.1:5000"
ODD = "a !#$&'()*+,;<=>@[]^`|~\\é図%20x"  # all that works, in one name
REFUSED = {
    "{x}": "'{'",
    "x}": "'}'",
    "a?b": "'?'",
    "\"a'": "both kinds of quotes",
    "\udcff": "not valid UTF-8",
}


def command(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A Python command in a folder, with MLflow's own database there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / name
    folder.mkdir()
    write_params(folder / "params.yaml", {})
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="the project is in .*; move the project to another folder") as caught:
        load()
    assert REFUSED[name] in str(caught.value)
    str(caught.value).encode()  # can be printed and written


@pytest.mark.parametrize("name", ["a?b", "\"a'"])
def test_what_a_server_of_mlflow_does_not_mind_is_not_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    place.check(tmp_path / name)


def test_a_percent_sign_before_the_packages_is_refused_before_any_work(tmp_path: Path) -> None:
    packages = tmp_path / "50%" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "mlflow").symlink_to(Path(mlflow.__file__).parent)
    write_params(tmp_path / "params.yaml", TINY)
    (tmp_path / "data").mkdir()
    path = f"{packages}{os.pathsep}{ROOT}"
    for module in ("stages.prepare", "pipelines.nas", "pipelines.sweep"):
        done = command(tmp_path, "-m", module, PYTHONPATH=path)
        assert done.returncode == 2
        assert f"MLflow is installed in '{packages}'" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "artifacts").exists()
    # Where this no longer fails, an update of MLflow has made the check superfluous.
    probe = "from mlflow import MlflowClient; MlflowClient('sqlite:///x.db').search_experiments()"
    assert "invalid interpolation" in command(tmp_path, "-c", probe, PYTHONPATH=path).stderr


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "MAKE", "MFLAGS"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["make", "--file", ROOT / "Makefile", *words],
        cwd=folder,
        env={**kept, "PATH": path, "LC_ALL": "C", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["serve", "ui", "repro", "server"])
def test_make_refuses_such_a_path_before_it_installs_anything(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "50%"
    folder.mkdir()
    (folder / "stages").symlink_to(ROOT / "stages")
    (folder / "requirements.lock").touch()
    done = make(folder, target)
    assert done.returncode == 2
    error, end = done.stderr.splitlines()
    assert error.startswith(
        f"error: MLflow would be installed in '{folder / '.venv'}', and it cannot make its database"
    )
    assert "Error 2" in end and not (folder / ".venv").exists()


@pytest.mark.parametrize("target", ["serve", "ui", "bench-serve"])
def test_make_refuses_such_a_path_of_the_packages(tmp_path: Path, target: str) -> None:
    packages = tmp_path / "50%" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "mlflow").symlink_to(Path(mlflow.__file__).parent)
    # This folder has no environment; --old-file keeps make from building one.
    path = f"{packages}{os.pathsep}{ROOT}"
    done = make(tmp_path, "--old-file", ".venv/ready", target, PYTHONPATH=path)
    error, end = done.stderr.splitlines()
    assert error.startswith(f"error: MLflow is installed in '{packages}', and it cannot make its database")
    assert end.endswith(f"{target}] Error 2")


def test_a_stage_works_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    for name in ("data", "models", "stages", "dvc.yaml", "versions.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    write_params(folder / "params.yaml", TINY)
    assert command(folder, "-m", "dvc", "init", "--no-scm", "--quiet").returncode == 0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = command(folder, "-m", "dvc", "repro", "prepare", PATH=path)
    assert "prepare: digits" in done.stdout, done.stderr
    assert done.returncode == 0
    assert (folder / "mlflow.db").exists() and [*folder.glob("mlruns/*/artifacts/data.json")]
    assert [found.name for found in tmp_path.iterdir()] == [ODD]
