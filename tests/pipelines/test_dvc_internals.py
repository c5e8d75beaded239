"""What the project relies on in DVC without a promise of DVC's. A failure names the assumption that no longer holds.

The assumptions are used in pipelines/dvc_internals.py and, where stages need them, in stages/plumbing/runtime.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from dvc.config import Config
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.repo.experiments.utils import EXEC_TMP_DIR

from pipelines import dvc_internals as internals
from pipelines.dvc_internals import Stage
from stages.errors import UserError
from stages.plumbing.runtime import OWNER, TEMPORARY
from stages.plumbing.status import ATTEMPT
from tests.stages.conftest import ROOT

GRAPH = """
stages:
  made:
    cmd: echo 1 > made
    params:
      - section.key
      - versions.yaml:
          - torch
    outs: [made]
  reads:
    cmd: cp made read
    meta: {gpu: true}
    deps: [made]
    outs: [read]
  needs:
    cmd: "true"
    deps: [nowhere, made]
  speaks:
    cmd: python speaks.py
    always_changed: true
  killed:
    cmd: exec sh -c 'kill -9 $$'
  refuses:
    cmd: exit 3
"""
# What a stage sees of those that started it, in a file.
SPEAKS = """
import json, os
from stages.plumbing.runtime import pipeline_process
process = pipeline_process()
seen = {"environment": dict(os.environ), "dvc": process.pid if process else None}
open("seen.json", "w").write(json.dumps(seen))
"""


def broken(assumption: str) -> str:
    return f"DVC {version('dvc')} breaks an assumption of this project: {assumption}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DVC project without git."""
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text("section: {key: 1}\n")
    (tmp_path / "versions.yaml").write_text("torch: 2\n")
    (tmp_path / "speaks.py").write_text(SPEAKS)
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def repro(folder: Path, name: str, **variables: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Runs a stage; the ended process, and what it printed."""
    process = subprocess.Popen(
        internals.repro_command(name, force=False),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, process.communicate()[0].splitlines()


def test_the_graph(folder: Path) -> None:
    stages = {stage.name: stage for stage in internals.all_stages(folder)}
    assert [name for name in stages if name in ("made", "reads")] == ["made", "reads"], broken(
        "Repo.index.graph leads from a stage to those whose outputs it reads"
    )
    assert stages["made"] == Stage("made", gpu=False, params=("section.key",)), broken(
        "a stage has a ParamsDependency for each parameter file, def_path names the file, params its keys"
    )
    assert stages["reads"] == Stage("reads", gpu=True, needs=("made",)), broken(
        "Stage.meta is what dvc.yaml says"
    )
    assert {name for name, stage in stages.items() if stage.always} == {"speaks"}, broken(
        "Stage.always_changed is what dvc.yaml says"
    )


def test_what_has_changed(folder: Path) -> None:
    assert not internals.up_to_date(folder, "made"), broken(
        "Stage.status() is not empty before the stage ran"
    )
    process, lines = repro(folder, "made")
    assert process.returncode == 0, lines
    assert internals.up_to_date(folder, "made"), broken("Stage.status() is empty when nothing has changed")
    (folder / "versions.yaml").write_text("torch: 3\n")
    assert not internals.up_to_date(folder, "made"), broken("Stage.status() sees a second file of parameters")
    with Repo(str(folder)) as repo, repo.lock:
        assert not internals.up_to_date(folder, "reads"), broken(
            "Repo.lock raises a DvcException when it is held"
        )


def test_dependencies_that_nothing_makes(folder: Path) -> None:
    assert internals.missing_dependencies(folder, "needs") == ["nowhere"], broken(
        "Dependency.exists, def_path and fs_path, Stage.outs and Output.fs_path say what is missing"
    )
    assert internals.missing_dependencies(folder, "reads") == []


def test_how_dvc_says_that_a_stage_failed(folder: Path) -> None:
    _, killed = repro(folder, "killed")
    assert internals.exit_status_of_stage(killed) in (-signal.SIGKILL, 128 + signal.SIGKILL), broken(
        f"DVC prints the exit status of a stage as 'exited with -9'; it printed {killed}"
    )
    process, refused = repro(folder, "refuses")
    assert process.returncode != 0, broken("dvc repro fails when its stage does")
    assert internals.exit_status_of_stage(refused) == 3, broken(
        f"... as 'exited with 3'; it printed {refused}"
    )
    assert internals.last_error(refused), broken(f"DVC's errors begin with 'ERROR: '; it printed {refused}")


def test_what_a_stage_sees_of_dvc(folder: Path) -> None:
    process, lines = repro(folder, "speaks", **{OWNER: str(os.getpid()), ATTEMPT: "an id"})
    assert process.returncode == 0, lines
    seen = json.loads((folder / "seen.json").read_text())
    assert "DVC_STAGE" in seen["environment"], broken("DVC sets DVC_STAGE for a stage's command")
    passed = (seen["environment"].get(OWNER), seen["environment"].get(ATTEMPT))
    assert passed == (str(os.getpid()), "an id"), broken("DVC passes its environment on to the stage")
    assert seen["dvc"] == process.pid, broken("'dvc' is among the first three words of DVC's command line")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A DVC project with a commit."""
    folder = tmp_path / "projet en français"  # DVC writes its settings in ASCII
    folder.mkdir()
    git(folder, "init", "-q")
    Repo.init(str(folder)).close()
    (folder / "dvc.yaml").write_text("stages:\n  made:\n    cmd: echo 1 > made\n    outs: [made]\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "project")
    return folder


def test_experiments_are_commits_under_a_reference(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    reference = internals.experiment_ref(commit, "nas-1")
    assert reference == str(ExpRefInfo(commit, "nas-1")), broken(
        "refs/exps/COMMIT/NAME, split after two characters"
    )
    tree = git(repository, "rev-parse", "HEAD^{tree}")
    made = git(repository, "commit-tree", tree, "-p", commit, "-m", internals.experiment_title("nas-1"))
    git(repository, "update-ref", reference, made)
    with Repo(str(repository)) as repo:
        listed = {name for names in repo.experiments.ls().values() for name, _ in names}
    assert listed == {"nas-1"}, broken("a commit under that reference is an experiment")


def test_temporary_experiments_are_where_stages_look_for_the_project(repository: Path) -> None:
    with Repo(str(repository)) as repo:
        assert repo.tmp_dir is not None
        folder = Path(repo.tmp_dir) / EXEC_TMP_DIR
    assert folder == repository / TEMPORARY, broken("`dvc exp run --temp` works below .dvc/tmp/exps")


def test_a_worktree_shares_the_cache_and_takes_results_from_it(repository: Path) -> None:
    process, lines = repro(repository, "made")
    assert process.returncode == 0, lines
    (repository / ".dvc/config.local").write_text("[core]\n    autostage = true\n")
    worktree = repository / TEMPORARY / "worktree"
    git(repository, "worktree", "add", "-q", "--detach", str(worktree))
    internals.share_cache(repository, worktree)
    with Repo(str(repository)) as repo, Repo(str(worktree)) as other:
        assert other.cache.local_cache_dir == repo.cache.local_cache_dir, broken(
            "config.edit('local') sets cache.dir, and Repo.cache.local_cache_dir is that folder"
        )
        assert other.config["core"]["autostage"], broken(
            f"{Config.CONFIG_LOCAL} holds the settings not in git"
        )
    lock = (repository / internals.LOCK_FILE).read_bytes()
    (worktree / internals.LOCK_FILE).write_bytes(lock)
    internals.check_out(worktree)
    assert (worktree / "made").read_text() == "1\n", broken("Repo.checkout() takes out what dvc.lock names")


@pytest.mark.parametrize("left", ["", '{"write": {"made'])
def test_a_lock_of_readers_that_a_killed_dvc_has_half_written_is_removed(folder: Path, left: str) -> None:
    repro(folder, "made")
    (folder / ".dvc/tmp/rwlock").write_text(left)
    (folder / "made").unlink()
    process, lines = repro(folder, "made")
    assert process.returncode != 0, broken(f"DVC stops at a rwlock that it cannot read; it printed {lines}")
    internals.mend(folder)
    process, lines = repro(folder, "made")
    assert process.returncode == 0, lines


def test_the_last_whole_lock_file_is_put_back(folder: Path) -> None:
    internals.mend(folder)  # nothing to keep
    repro(folder, "made")
    repro(folder, "reads")
    whole = (folder / "dvc.lock").read_text()
    internals.mend(folder)
    torn = 0
    for length in range(0, len(whole) - 1, 10):
        (folder / "dvc.lock").write_text(whole[:length])  # the disk was full, or DVC was killed
        with contextlib.suppress(UserError):
            internals.all_stages(folder)
            continue
        torn += 1
        internals.mend(folder)
        assert (folder / "dvc.lock").read_text() == whole
        assert internals.up_to_date(folder, "made", "reads")
    assert torn > 5, broken("DVC refuses a dvc.lock that ends early")


def test_a_conflict_of_git_in_the_lock_file_is_left_to_the_user(folder: Path) -> None:
    repro(folder, "made")
    internals.mend(folder)
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    internals.mend(folder)
    assert "<<<<<<<" in (folder / "dvc.lock").read_text()
    with pytest.raises(UserError, match="YAML file structure is corrupted"):
        internals.all_stages(folder)


def test_no_other_module_imports_dvc() -> None:
    rooms = ("models", "stages", "pipelines", "serving", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = [path for path in files if re.search(r"^\s*(from|import) dvc\b", path.read_text(), re.M)]
    assert found == [ROOT / "pipelines/dvc_internals.py"]
