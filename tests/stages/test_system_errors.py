"""An error of the file system has the same exit status wherever it happens: 2 for rights and names, 1 for disks and networks."""

from __future__ import annotations

import builtins
import errno
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from prefect.client.schemas.objects import State
from safetensors import SafetensorError

from pipelines.command import BAD_INPUT, failed
from pipelines.workspace import _git
from stages.alphas import read_alphas
from stages.errors import MachineError, UserError
from stages.evaluation import Evaluation
from stages.images.prepare import folders, named, shards
from stages.images.prepare.lists import labels_of
from stages.images.prepare.npz import read_npz
from stages.images.prepare.pictures import Unreadable, decode
from stages.plumbing.checkpoint import Checkpoint
from stages.plumbing.files import read_table
from stages.plumbing.runtime import outcome
from tests.zoo.conftest import classes, picture

DENIED = errno.EACCES, "Permission denied"
BROKEN_DISK = errno.EIO, "Input/output error"


def npz(path: Path) -> None:
    path = path.with_suffix(".npz")
    if not path.exists():
        np.savez(path, train_images=np.zeros((6, 8, 8), np.uint8), train_labels=np.arange(6) % 2)
    read_npz(path, None)


def shard(path: Path) -> None:
    path = path.with_name("train.tar")
    if not path.exists():
        with tarfile.open(path, "w") as file:
            for name in ("0.png", "0.cls"):
                file.addfile(tarfile.TarInfo(name))
    shards._samples(path, folders.Counter())


def a_list(path: Path) -> None:
    folder = path.parent / "val"
    folder.mkdir(exist_ok=True)
    if not path.with_name("val.txt").exists():
        path.with_name("val.txt").write_text("x.png a\n")
    labels_of(folder, [folder / "x.png"], ["a", "b"], "val")


def decoded(path: Path) -> None:
    if not path.with_suffix(".png").exists():
        picture(1).save(path.with_suffix(".png"))
    decode(path.with_suffix(".png"), grey=False, side=None, scale=None)


def table(path: Path) -> None:
    if not path.exists():
        path.write_text("a,b\n1,2\n")
    read_table(path, "search.benchmark_table")


READERS: dict[str, Callable[[Path], None]] = {
    "npz": npz,
    "shard": shard,
    "list": a_list,
    "picture": decoded,
    "table": table,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("error", "status"), [(BROKEN_DISK, 1), (DENIED, 2)], ids=["disk", "rights"])
def test_an_error_of_the_system_is_not_called_a_damaged_file(
    tmp_path: Path, reader: str, error: tuple[int, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = READERS[reader]
    read(tmp_path / "file")  # is whole
    _break(monkeypatch, tmp_path, *error)
    with pytest.raises((UserError, MachineError, Unreadable, OSError)) as caught:
        read(tmp_path / "file")
    found = (2, f"{tmp_path}: {caught.value}") if caught.type is Unreadable else outcome(caught.value)
    assert found[0] == status
    assert error[1] in found[1] and str(tmp_path) in found[1] and "\n" not in found[1]
    for wrong in ("numpy.savez", "UTF-8", "write it again", "damaged"):
        assert wrong not in found[1]


def _break(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int, text: str) -> None:
    """Lets every file in the folder fail when it is opened."""
    real = io.open

    def broken(file: Any, *arguments: Any, **options: Any) -> Any:
        if str(file).startswith(str(folder)):
            raise OSError(number, text, str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(io, "open", broken)
    monkeypatch.setattr(builtins, "open", broken)
    monkeypatch.setattr(tarfile, "bltn_open", broken)


def test_a_folder_on_a_broken_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path, "a", "b")
    real = os.scandir

    def broken(path: Path) -> Any:
        if Path(path).name == "b":
            raise OSError(*BROKEN_DISK)
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(MachineError, match=f"Input/output error .{tmp_path / 'b'}."):
        folders.listing(tmp_path)


@pytest.mark.parametrize("read", [read_alphas, Evaluation.load], ids=["alphas", "evaluation"])
def test_an_artifact_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(*DENIED)

    monkeypatch.setattr("safetensors.safe_open", denied)
    with pytest.raises(
        UserError, match=f"^Permission denied .{tmp_path / 'x'}.; give this user the right to it$"
    ):
        read(tmp_path / "x")


def test_a_checkpoint_that_may_not_be_read_is_not_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint("search", "key")
    checkpoint.save({"epoch": 1})

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(*DENIED)

    monkeypatch.setattr("safetensors.safe_open", denied)
    with pytest.raises(UserError, match="Permission denied .*; give this user the right to it") as caught:
        checkpoint.load()
    assert "delete" not in str(caught.value)


class TestDownload:
    def failing(self, error: Exception, root: Path) -> Exception:
        def fail() -> None:
            raise error

        with pytest.raises((UserError, MachineError)) as caught:
            named._downloaded(root, fail)
        assert "\n" not in str(caught.value)
        return caught.value

    @pytest.mark.parametrize(
        "number", [errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ENAMETOOLONG]
    )
    def test_what_is_wrong_with_the_folder_is_the_users(self, tmp_path: Path, number: int) -> None:
        path = str(tmp_path / "cifar-10-binary.tar.gz")
        error = self.failing(OSError(number, os.strerror(number), path), tmp_path)
        assert isinstance(error, UserError)
        assert path in str(error) and "network" not in str(error)

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded", "x"),
            OSError(*BROKEN_DISK),
            URLError(PermissionError(*DENIED)),  # of a firewall
            URLError("name or service not known"),
            TimeoutError("timed out"),
            RuntimeError("File not found or corrupted."),
        ],
        ids=str,
    )
    def test_disks_and_networks_are_the_machines(self, tmp_path: Path, error: Exception) -> None:
        assert isinstance(self.failing(error, tmp_path), MachineError)

    def test_a_file_in_the_place_of_data_root(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(UserError, match=str(path)):
                named.READERS["cifar10"](path)


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (PermissionError(*DENIED, "x"), BAD_INPUT, "Permission denied (x); give this user the right to it"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "Failed", "No space left on device (x)"),
        (UserError("wrong"), BAD_INPUT, "wrong"),
        (MachineError("away"), "Failed", "away"),
    ],
)
def test_the_state_of_a_flow_says_whose_error_it_was(error: Any, name: str, message: str) -> None:
    state: State = failed(error)
    assert (state.name, state.message, state.is_failed()) == (name, message, True)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("fatal: not a git repository", UserError),
        ("fatal: write error: No space left on device", MachineError),
    ],
)
def test_git_on_a_full_disk_is_tried_again(
    tmp_path: Path, said: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 128\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(kind, match=said):
        _git(tmp_path, "worktree", "add")


class Disk:
    """What os.statvfs says about disks, of which some are full."""

    def __init__(self, *full: str, of_files: bool = False):
        self.full, self.of_files = full, of_files

    def __call__(self, place: str) -> SimpleNamespace:
        full = place in self.full
        blocks = 0 if full and not self.of_files else 10**9
        return SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_files=100, f_favail=0 if full else 50)


@pytest.mark.parametrize("of_files", [False, True])
def test_a_full_disk_is_named_although_the_write_that_failed_does_not_know_it(
    of_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", "/elsewhere")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for place in (str(tmp_path), "/elsewhere"):
        monkeypatch.setattr(os, "statvfs", Disk(place, of_files=of_files))
        assert outcome(full) == (1, f"No space left on device ({place})")
    monkeypatch.setattr(os, "statvfs", Disk())
    assert outcome(full) == (1, "No space left on device"), "it claims nothing that it does not see"
    named = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/file")
    assert outcome(named) == (1, "No space left on device (/data/file)")


def test_a_full_disk_is_a_failure_of_the_machine_whoever_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", Disk(os.getcwd()))
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert outcome(error) == (1, f"No space left on device ({os.getcwd()})")
