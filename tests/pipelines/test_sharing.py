"""Pushing after a flow: with no remote, with one that fails, and with one that works, which then gets everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import sharing
from pipelines.nas import nas
from pipelines.workspace import experiment_name
from tests.pipelines.conftest import SMALL, Server, git_project
from tests.stages.conftest import write_params

FIRST, SECOND = {"search.seed": 3}, {"search.seed": 4}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def dvc(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def team(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that shares with DVC's remote and a git repository, on the tests' server; it is the current folder."""
    folder = tmp_path / "project"
    git_project(folder)
    write_params(folder / "params.yaml", {**SMALL, "share.push": True, "share.git_remote": "origin"})
    git(folder, "commit", "-qam", "share")
    git(tmp_path, "init", "-q", "--bare", "shared.git")
    git(folder, "remote", "add", "origin", str(tmp_path / "shared.git"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sharing, "RETRY_DELAYS", [0.1, 0.1])
    return folder


def run(params: dict[str, int] | None = None) -> str:
    """The message of a flow that prepares the data, which must complete."""
    state = nas(params, "prepare", return_state=True)
    assert state.is_completed(), state.message
    return str(state.message)


def test_a_push_that_fails_fails_no_run_and_is_tried_again_by_the_next(team: Path, tmp_path: Path) -> None:
    name, other = experiment_name(FIRST), experiment_name(SECOND)
    said = run(FIRST)
    assert said == (
        f"prepare is done; the artifacts of {name} were not pushed: DVC has no remote; `dvc remote add -d NAME ADDRESS` adds"
        f" one; the next flow tries again, or `dvc exp push origin {name}` does it now"
    )

    (tmp_path / "storage").write_text("a file in the place of the remote's folder")
    dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    said = run(SECOND)
    assert f"the artifacts of {other} were not pushed: " in said and "Not a directory" in said, said
    assert "\n" not in said

    (tmp_path / "storage").unlink()
    assert run(SECOND) == "prepare is done"  # everything is cached, and pushed now
    assert [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    pushed = git(team, "ls-remote", str(tmp_path / "shared.git"))
    assert f"/{name}\n" in pushed and f"/{other}\n" in pushed
    assert not [*(team / ".checkpoints/unpushed").iterdir()]


def test_the_project_s_own_run_pushes_what_dvc_lock_names(
    team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    write_params(team / "params.yaml", {**SMALL, "share.push": True})
    assert run() == "prepare is done"
    data = {path.name for path in Path("artifacts/data").iterdir()}
    subprocess.run(["rm", "-rf", "artifacts", ".dvc/cache"], check=True)
    dvc("pull", "prepare")
    assert {path.name for path in Path("artifacts/data").iterdir()} == data


def test_without_the_setting_nothing_is_pushed(team: Path, tmp_path: Path) -> None:
    dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    assert sharing.share(team, sharing.ShareParams(push=False, git_remote=None), 1.0) == ""
    assert not (tmp_path / "storage").exists()
