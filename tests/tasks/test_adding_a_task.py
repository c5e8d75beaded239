"""A task needs only its own folders, a profile and one line in TASKS, which a copy of the project proves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tests.stages.processes import ROOT
from tests.tasks.conftest import CURVES

PATIENCE = 500  # seconds


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it stands, with the task curves added and committed."""
    folder = tmp_path_factory.mktemp("adding") / "project"
    folder.mkdir()
    files = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "the project")
    for part in ("models", "stages", "profiles"):
        shutil.copytree(
            CURVES / part, folder / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    tasks = folder / "stages" / "tasks.py"
    line = '    "images": "stages.images",\n'
    text = tasks.read_text()
    assert text.count(line) == 1
    tasks.write_text(text.replace(line, f'{line}    "curves": "stages.curves",\n'))
    git(folder, "add", "--all")
    changed = git(folder, "diff", "--cached", "--name-only", "--diff-filter=M").split()
    assert changed == ["stages/tasks.py"], "adding a task must change no other files"
    git(folder, "commit", "--quiet", "-m", "curves")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_HOME": str(folder.parent / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", *arguments)


def test_the_task_goes_through_all_stages_and_back(copy: Path) -> None:
    images = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(f"{images}# a change\n")
    refused = python(copy, "pipelines.task", "curves")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: task: params.yaml has changes that are not committed;")
    (copy / "params.yaml").write_text(images)
    unknown = python(copy, "pipelines.task", "curve")
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "error: task: task is 'curve'; did you mean curves?\n",
    )

    switched = python(copy, "pipelines.task", "curves")
    assert switched.returncode == 0, switched.stderr
    assert (copy / "params.yaml").read_text() == (copy / "profiles/curves.yaml").read_text()
    done = python(copy, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "register: curves version 1: champion" in done.stdout
    found = json.loads((copy / "artifacts/genotype/genotype.json").read_text())
    assert found == {"space": "curves", "operation": "sine"}, "the points are drawn from a sine"
    again = python(copy, "dvc", "repro")
    assert again.stdout.count("didn't change, skipping") == 5

    git(copy, "commit", "--quiet", "--all", "-m", "curves from now on")
    back = python(copy, "pipelines.task", "images")
    assert back.returncode == 0, back.stderr
    assert (copy / "params.yaml").read_text() == images


def test_settings_of_another_task_are_one_clear_line(copy: Path) -> None:
    text = (copy / "profiles/curves.yaml").read_text()
    before = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("task: curves", "task: images"))
    try:
        refused = python(copy, "stages.prepare")
    finally:
        (copy / "params.yaml").write_text(before)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: prepare: params.yaml: task is images, but the sections are those of the task curves; write"
        " `task: curves`, or run `make task NAME=images` for that task's params.yaml\n"
    )


def versions(folder: Path) -> list[ModelVersion]:
    """The versions of the task's registered model."""
    return list(MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_model_versions("name = 'curves'"))


def test_a_sweep_of_two_seeds_on_a_profile(copy: Path) -> None:
    """A sweep over curves works while params.yaml is that of images."""
    store, before = f"sqlite:///{copy / 'mlflow.db'}", len(versions(copy))
    done = python(copy, "pipelines.sweep", "--profile", "curves", "--seeds", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(versions(copy)) <= before + 1, "only the winner is registered"
    (winner,) = MlflowClient(store).search_runs(
        [experiment.experiment_id for experiment in MlflowClient(store).search_experiments()],
        "tags.stage = 'sweep'",
    )
    assert winner.data.tags["registered"].startswith("curves version ")
    assert {"valid_squared_error", "test_squared_error"} <= set(winner.data.metrics)
    assert not (copy / "params.yaml").read_text().startswith("# Every setting of the task curves")


def test_dvc_watches_the_code_of_the_task_too(copy: Path) -> None:
    done = python(copy, "pytest", "tests/stages/test_code.py", "-k", "watches or log_line", "-n0")
    assert done.returncode == 0, done.stdout[-3000:]


def test_code_that_only_this_task_uses_invalidates_no_image_search(copy: Path) -> None:
    program = (
        "from stages.plumbing.checkpoint import key; print(key('search', 'images', {}, {}));"
        "print(key('search', 'curves', {}, {}))"
    )

    def keys() -> list[str]:
        done = run(copy, sys.executable, "-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    file, before = copy / "models/curves/cells.py", keys()
    text = file.read_text()
    file.write_text(f"{text}\n# changed\n")
    try:
        after = keys()
    finally:
        file.write_text(text)
    assert after[0] == before[0]
    assert after[1] != before[1]
