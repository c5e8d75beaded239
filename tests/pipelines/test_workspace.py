"""Runs with parameters of their own: where they work, what they share, and what they do not touch."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines.nas import main
from pipelines.pruning import KEPT_DAYS, lock_of
from pipelines.workspace import WORKSPACES, _git, experiment_name, patiently, save_experiment, workspace
from stages.errors import MachineError, UserError
from stages.plumbing.settings import load
from tests.pipelines.conftest import git_project

CHANGES = {"search.seed": 3}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project for one test; it is the current folder."""
    git_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_run_without_changes_works_in_the_project(project: Path) -> None:
    with workspace({}) as folder:
        assert folder == project


def test_changes_have_a_workspace_and_the_project_stays_as_it_is(project: Path) -> None:
    (project / "data/images.npz").write_text("images")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# mine, not committed\n")
    before = (project / "params.yaml").read_bytes()
    with workspace(CHANGES) as folder:
        assert folder.name.startswith("digits-ms-darts-seed3-")
        assert json.loads((folder / ".checkpoints/asked.json").read_text()) == CHANGES
        assert load(folder / "params.yaml").search.seed == 3
        assert "# mine, not committed" in (folder / "params.yaml").read_text()
        assert (folder / "data/images.npz").read_text() == "images"
        (folder / "data/downloaded").write_text("for all")
        (folder / "dvc.lock").write_text("schema: '2.0'\n")
        (folder / "artifacts").mkdir()
    assert (project / "params.yaml").read_bytes() == before
    assert git(project, "status", "--porcelain").split() == ["M", "params.yaml"]
    assert (project / "data/downloaded").exists()

    (project / "stages/prepare.py").write_text("# newer\n")
    with workspace({"search.seed": 4}) as other:
        assert other != folder
    with workspace(CHANGES) as again:  # the same place, with its results and the present code
        assert again == folder
        assert (again / "dvc.lock").read_text() == "schema: '2.0'\n"
        assert (again / "artifacts").is_dir()
        assert (again / "stages/prepare.py").read_text() == "# newer\n"
    assert (project / "data/.gitkeep").exists()


def test_its_results_become_an_experiment(project: Path) -> None:
    with workspace(CHANGES) as folder:
        (folder / "dvc.lock").write_text("schema: '2.0'\n")
        save_experiment(folder)
        save_experiment(folder)
    name = experiment_name(CHANGES)
    listed = [sys.executable, "-m", "dvc", "exp", "list", "--name-only"]
    assert subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split() == [name]
    commit = git(project, "rev-parse", "HEAD").strip()
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    changed = git(project, "diff", "--name-status", "HEAD", ref).split()
    assert changed == ["A", "dvc.lock", "M", "params.yaml"]  # not the link to the data, nor what is in it
    assert "seed: 3" in git(project, "show", f"{ref}:params.yaml")


@pytest.mark.parametrize(
    "left",
    ["worktrees/{name}/index.lock", "refs/exps/{commit}/{name}.lock", "../.checkpoints/{name}.index.lock"],
)
def test_what_a_killed_git_has_locked_does_not_stop_the_next_run(
    project: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.workspace.LOCK_AGE", 0.0)
    commit = git(project, "rev-parse", "HEAD").strip()
    names = {"name": experiment_name(CHANGES), "commit": f"{commit[:2]}/{commit[2:]}"}

    def run() -> None:
        with workspace(CHANGES) as folder:
            (folder / "dvc.lock").write_text("schema: '2.0'\n")
            save_experiment(folder)

    run()
    lock = project / ".git" / left.format(**names)
    assert lock.parent.is_dir()
    lock.touch()
    run()
    assert not lock.exists()


def test_a_worktree_that_git_was_killed_while_making_is_made_again(project: Path) -> None:
    with workspace(CHANGES) as folder:
        pass
    shutil.rmtree(folder)
    (project / ".git/worktrees" / folder.name / "locked").write_text(
        "initializing\n"
    )  # as `git worktree add` does
    with workspace(CHANGES) as again:
        assert load(again / "params.yaml").search.seed == 3


def test_a_lock_of_the_users_own_git_may_pass(project: Path) -> None:
    (project / ".git/config.lock").touch()
    with pytest.raises(MachineError, match="config: File exists"):
        _git(project, "config", "user.name", "anybody")
    assert (project / ".git/config.lock").exists()


def test_a_file_that_git_does_not_know_is_named_before_anything_runs(project: Path) -> None:
    (project / "stages/unrelated.py").write_text("")
    with workspace(CHANGES):
        pass
    git(project, "rm", "-q", "--cached", "stages/alphas.py")
    git(project, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "without")
    with (
        pytest.raises(
            UserError, match=r"^stages/alphas.py: imported by a stage, .*`git add stages/alphas.py`$"
        ),
        workspace({"search.seed": 4}),
    ):
        pass
    assert not (project / WORKSPACES / experiment_name({"search.seed": 4})).exists()


def test_old_workspaces_go_unless_a_run_can_be_resumed_or_works_there(project: Path) -> None:
    def old(name: str) -> None:
        long_ago = time.time() - (KEPT_DAYS + 1) * 24 * 3600
        os.utime(lock_of(project, name), (long_ago, long_ago))

    folders = {}
    for seed in (3, 4, 5, 6):
        with workspace({"search.seed": seed}) as folders[seed]:
            pass
    (folders[4] / ".checkpoints/search/0123").mkdir(parents=True)
    for seed in (3, 4, 5):
        old(folders[seed].name)
    with FileLock(lock_of(project, folders[5].name)):
        old(folders[5].name)
        with workspace({"search.seed": 7}) as newest:
            assert not folders[3].exists()
            assert all(folders[seed].exists() for seed in (4, 5, 6))
    assert git(project, "worktree", "list").count("-seed") == 4
    old(newest.name)
    with workspace({"search.seed": 7}) as again:  # the one in use never goes
        assert again == newest and (again / "params.yaml").exists()


def test_a_workspace_that_was_removed_comes_back_with_its_results(project: Path) -> None:
    with workspace(CHANGES) as folder:
        (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
        save_experiment(folder)
    git(project, "worktree", "remove", "--force", str(folder))
    with workspace(CHANGES) as again:
        assert (again / "dvc.lock").read_text() == "schema: '2.0'\nstages: {}\n"


def test_one_run_at_a_time_in_a_workspace(project: Path) -> None:
    waited: list[str] = []
    order: list[str] = []

    def second() -> None:
        with workspace(CHANGES, waited.append):
            order.append("second")

    with workspace(CHANGES):
        thread = threading.Thread(target=second)
        thread.start()
        while not waited:
            time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waits until another flow run" in waited[0]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"search.sed": 1}, "search.sed is unknown; did you mean search.seed?"),
        ({"search.seed": "x"}, "search.seed is 'x'; it should be a valid integer"),
        ({"search.seed.x": 1}, "search.seed.x is unknown; search.seed is a value, not a section"),
    ],
)
def test_a_wrong_change_is_one_line_and_makes_nothing(
    project: Path, changes: dict[str, object], line: str
) -> None:
    with pytest.raises(UserError) as error, workspace(changes):
        pass
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not (project / ".dvc/tmp/exps").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-S", "search.sed=1"], "did you mean search.seed?"),
        (["-S", "search.seed"], "has no value"),
        (["-S", "search.seed=[1"], "is not valid YAML"),
        (["--target", "serach"], "did you mean search?"),
    ],
)
def test_the_command_refuses_before_a_server_is_started(
    project: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: nas: ")
    assert line in error
    assert error.count("\n") == 1
    assert time.monotonic() - started < 10


def test_a_full_disk_is_waited_for_and_a_mistake_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.workspace.RETRY_DELAYS", [0.0, 0.0])
    errors: list[Exception] = []
    said: list[str] = []

    def act() -> None:
        if errors:
            raise errors.pop()

    errors = [MachineError("no room"), OSError(errno.ENOSPC, "No space left on device", "/disk")]
    patiently(act, said.append)
    assert said == ["tries again in 0 s: No space left on device (/disk)", "tries again in 0 s: no room"]
    errors = [MachineError(str(number)) for number in range(4)]
    with pytest.raises(MachineError, match="1"):
        patiently(act, said.append)
    errors = [PermissionError(errno.EACCES, "Permission denied", "/disk")] * 2
    with pytest.raises(PermissionError):
        patiently(act, said.append)
    assert len(errors) == 1
