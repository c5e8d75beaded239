"""What DVC cannot watch in data.root is refused in one line by everything that starts DVC, before DVC hangs at it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import nas, sweep
from pipelines.workspace import workspace
from stages.errors import UserError
from stages.images.prepare.folders import listing
from stages.plumbing import settings
from tests.stages.conftest import ROOT, write_params
from tests.zoo.conftest import classes, picture


def bound(path: Path) -> None:
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(path.parents[2])


def linked_folder(path: Path) -> None:
    path.symlink_to(classes(path.parents[2] / "elsewhere", "c"))


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {  # how to make one, and what is said
    "pipe": (os.mkfifo, "pipes, sockets or devices"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "pipes, sockets or devices"),
    "socket": (bound, "pipes, sockets or devices"),
    "broken link": (lambda path: path.symlink_to("nowhere.png"), "broken links"),
    "circle": (lambda path: path.symlink_to(path.name), "broken links"),
    "link to a folder": (linked_folder, "links to folders"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose data.root, data/, holds two classes; it is the current folder."""
    classes(tmp_path / "data", "a", "b")
    write_params(tmp_path / "params.yaml", {"data.name": "imagefolder", "data.root": "data"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fail(*_: object) -> int:
    raise AssertionError("a server is started")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_what_dvc_cannot_watch_is_refused_before_it_starts(
    project: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.main() == 0
    make, words = KINDS[kind]
    make(project / "data/a/odd.png")
    said = f"data.root contains {words} (data/a/odd.png), and DVC "
    for module in (nas, sweep):
        monkeypatch.setattr(module, "run_flow", fail)
    for start, name in (
        (settings.main, ""),
        (lambda: nas.main([]), "nas: "),
        (lambda: sweep.main([]), "sweep: "),
    ):
        assert start() == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {name}{said}") and error.count("\n") == 1
    with pytest.raises(UserError, match=words), workspace({}):
        pass
    with pytest.raises(UserError, match=words), workspace({"search.seed": 3}):
        pass
    assert not (project / ".dvc/tmp/exps/flows").exists()


def test_a_link_to_a_folder_is_refused_in_the_words_of_prepare(project: Path) -> None:
    for number in range(5):
        linked_folder(project / f"data/a/{number}")
        (project / "elsewhere").rename(project / f"elsewhere{number}")
        (project / f"data/a/{number}").unlink()
        (project / f"data/a/{number}").symlink_to(project / f"elsewhere{number}")
    with pytest.raises(UserError) as by_prepare:
        listing(Path("data"))
    with pytest.raises(UserError) as before, workspace({}):
        pass
    assert str(before.value) == str(by_prepare.value)
    assert "data/a/0, data/a/1, data/a/2 and 2 more" in str(before.value)


def test_all_kinds_are_named_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(project / "data/b/pipe")
    (project / "data/.hidden").mkdir()
    (project / "data/.hidden/gone").symlink_to("nowhere")  # DVC hashes hidden folders, too
    assert settings.main() == 2
    error = capsys.readouterr().err
    assert "broken links (data/.hidden/gone)" in error and "pipes, sockets or devices (data/b/pipe)" in error


@pytest.mark.parametrize("kind", ["pipe", "broken link"])
def test_data_root_itself(project: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    KINDS[kind][0](project / "images.npz")
    write_params(project / "params.yaml", {"data.name": "npz", "data.root": "images.npz"})
    assert settings.main() == 2
    assert f"data.root is images.npz, which is a {kind}" in capsys.readouterr().err


def test_what_does_no_harm_is_not_refused(project: Path) -> None:
    picture(999).save(project / "elsewhere.png")
    (project / "data/a/file.png").symlink_to(project / "elsewhere.png")
    (project / "data/.git").mkdir()
    os.mkfifo(project / "data/.git/daemon.ipc")  # DVC does not look into .git within the project
    assert settings.main() == 0
    linked_folder(project / "data/a/folder")
    # With digits, prepare reads nothing there, and data/ may hold links to the data sets of other settings.
    write_params(project / "params.yaml", {"data.root": "data"})
    assert settings.main() == 0
    (project / "data").rename(project / "real")
    (project / "data").symlink_to("real")  # DVC follows a link that is data.root itself
    assert settings.main() == 0
    write_params(project / "params.yaml", {"data.root": "missing"})  # which DVC says in words of its own
    assert settings.main() == 0


def test_git_outside_the_project_is_read_by_dvc(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = classes(tmp_path_factory.mktemp("outside"), "a", "b")
    (outside / ".git").mkdir()
    os.mkfifo(outside / ".git/daemon.ipc")
    write_params(project / "params.yaml", {"data.name": "imagefolder", "data.root": str(outside)})
    assert settings.main() == 2


def test_only_the_trials_that_read_a_folder_are_asked_about_it(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run_flow", fail)
    for name in ("dvc.yaml", "models", "stages"):
        (project / name).symlink_to(ROOT / name)
    other = classes(project / "other", "a", "b")
    os.mkfifo(other / "pipe")
    assert sweep.main(["--grid", "data.root=data,other"]) == 2
    assert "pipes, sockets or devices (other/pipe)" in capsys.readouterr().err


def test_many_files_take_no_time(project: Path) -> None:
    for name in ("a", "b"):
        for number in range(10_000):
            (project / f"data/{name}/{number}.jpg").touch()
    started = time.process_time()
    assert settings.main() == 0
    assert time.process_time() - started < 0.5  # for 20,000 files, of which the check itself takes 0.02 s


def test_dvc_opens_a_pipe_and_does_not_look_behind_a_link(project: Path) -> None:
    """Where this no longer holds, an update of DVC has made a part of the check superfluous."""
    (project / "dvc.yaml").write_text("stages:\n  read:\n    cmd: echo ran\n    deps: [data]\n")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], check=True)
    linked_folder(project / "data/a/folder")

    def repro() -> str:
        return subprocess.run([*dvc, "repro"], capture_output=True, text=True, check=True).stdout

    assert "ran" in repro()
    picture(5).save(project / "elsewhere/c/new.png")
    assert "up to date" in repro()

    os.mkfifo(project / "data/b/pipe")
    waiting = subprocess.Popen([*dvc, "repro"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        writer = os.open(project / "data/b/pipe", os.O_WRONLY)  # returns when DVC opens the other end
        os.close(writer)
    finally:
        waiting.kill()
        waiting.communicate()
