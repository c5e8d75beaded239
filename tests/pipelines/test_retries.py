"""What is tried again, and what is not, because another attempt would meet it again."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipelines import nas
from pipelines.command import BAD_INPUT
from pipelines.graph import Stage
from pipelines.process import run_stage
from stages.errors import MachineError, UserError, of_words, remedy

GRAPH = """
stages:
  made:
    cmd: echo 1 > made
    outs: [made]
  without-module:
    cmd: python -c 'import nowhere'
  misspelled:
    cmd: python -c 'if'
  without-memory:
    cmd: >-
      python -c 'raise ImportError("libcuda.so: cannot map it: Cannot allocate memory")'
  full:
    cmd: >-
      python -c 'raise OSError(28, "No space left on device")'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DVC project in a git repository."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    Repo.init(str(tmp_path)).close()
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("without-module", "ModuleNotFoundError: No module named 'nowhere'"),
        ("misspelled", "SyntaxError: "),
    ],
)
def test_code_that_cannot_be_loaded_is_not_tried_again(folder: Path, name: str, line: str) -> None:
    result = run_stage(name, folder)
    assert result.status == 2
    assert result.message.startswith(f"{name}: {line}")


@pytest.mark.parametrize("name", ["without-memory", "full"])
def test_what_may_pass_is_tried_again(folder: Path, name: str) -> None:
    assert run_stage(name, folder).status == 1


def test_an_output_that_git_tracks_is_not_tried_again(folder: Path) -> None:
    (folder / "made").write_text("1\n")
    subprocess.run(["git", "add", "made"], cwd=folder, check=True)
    result = run_stage("made", folder)
    assert (result.status, result.message.endswith("`git rm --cached` it")) == (2, True), result


def test_a_cache_that_is_no_folder_is_not_tried_again(folder: Path) -> None:
    (folder / ".dvc/cache").write_text("")
    result = run_stage("made", folder)
    assert result.status == 2
    assert str(folder / ".dvc/cache") in result.message
    assert result.message.endswith("; remove the file that is in the place of a folder")


@pytest.mark.parametrize("file", ["dvc.lock", "dvc.yaml"])
def test_a_file_of_dvc_that_is_broken_while_the_flow_runs_is_not_tried_again(folder: Path, file: str) -> None:
    (folder / file).write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    result = run_stage("made", folder)
    assert result.status == 2
    assert file in result.message
    assert "\n" not in result.message


@pytest.mark.parametrize(("number", "again"), [(errno.EACCES, False), (errno.ENOSPC, True)])
def test_an_error_of_the_system_before_a_stage_starts(
    monkeypatch: pytest.MonkeyPatch, number: int, again: bool
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(number, os.strerror(number), "/somewhere/.dvc")

    monkeypatch.setattr(nas, "mend", lambda _: None)
    monkeypatch.setattr(nas, "up_to_date", refuse)
    state = nas.execute.fn(Stage("search", gpu=False), Path(), force=False, timeout_hours=1)
    assert state.is_failed()
    assert (state.name != BAD_INPUT) == again
    assert nas._worth_a_retry(None, None, state) == again  # type: ignore[arg-type]
    assert "/somewhere/.dvc" in str(state.message)


def test_words_of_the_system_in_what_other_programs_say() -> None:
    assert remedy("[Errno 13] Permission denied: 'x'") == "; give this user the right to it"
    assert remedy("[Errno 28] No space left on device: 'x'") is None
    assert remedy("Permission denied after No space left on device") is None
    assert of_words("fatal: No space left on device") is MachineError
    assert of_words("fatal: sha1 file 'index.lock' write error. Out of diskspace") is MachineError
    assert of_words("fatal: not a git repository") is UserError
