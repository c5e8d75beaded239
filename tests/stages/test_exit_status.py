"""Exit status 1 is for what another attempt may get past, because flows try again; what only the user can mend is 2."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from stages.errors import MachineError, UserError
from stages.plumbing.runtime import outcome
from stages.plumbing.tracking import client, reported, stage_run


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "No space left on device (x)"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 1, "Connection refused"),
        (OSError("of a library, without a number"), 1, "of a library"),
        (PermissionError(errno.EACCES, "Permission denied", "artifacts"), 2, "Permission denied (artifacts); give"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 2, "(x); make the file system writable"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "git"), 2, "directory (git); create it"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "artifacts"), 2, "in the place of a folder"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2, "choose a shorter name"),
        (MemoryError(), 1, "there is not enough memory (MemoryError); end what else uses it, or lower batch_size"),
        (OutOfMemoryError("CUDA out of memory."), 1, "not enough memory (CUDA out of memory.)"),
        (UserError("wrong"), 2, "wrong"),
        (MachineError("away"), 1, "away"),
    ],
)  # fmt: skip
def test_the_status_of_an_error(error: Exception, status: int, words: str) -> None:
    found, message = outcome(error)
    assert found == status
    assert words in message and "\n" not in message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_PARAMETER_VALUE", UserError),
        ("PERMISSION_DENIED", UserError),
        ("UNAUTHENTICATED", UserError),
        ("INTERNAL_ERROR", MachineError),
        ("TEMPORARILY_UNAVAILABLE", MachineError),
        ("REQUEST_LIMIT_EXCEEDED", MachineError),
    ],
)
def test_what_mlflow_would_refuse_again_is_not_tried_again(
    code: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/runs")
    with pytest.raises(kind) as caught, reported():
        raise MlflowException("said no\nin two lines", error_code=ErrorCode.Value(code))
    assert "\n" not in str(caught.value) and "me:***@host" in str(caught.value)


def broken_database(folder: Path, kind: str) -> None:
    path = folder / "own.db"
    match kind:
        case "no database":
            path.write_bytes(b"anything but a database " * 100)
        case "a folder":
            path.mkdir()
        case "of another program":
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE experiments (x)")


@pytest.mark.parametrize("kind", ["no database", "a folder", "of another program"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_is_no_database_of_mlflows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    broken_database(tmp_path, kind)
    started = time.monotonic()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'own.db'}")
    with (
        pytest.raises(UserError, match="MLflow cannot use the database sqlite:.*own.db") as caught,
        stage_run("prepare", {}),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert (
        time.monotonic() - started < 30
    )  # MLflow by itself tries for 100 s to open a file that is no database


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://127.0.0.1:port", "which is no address (nonnumeric port: 'port'); write http://HOST:PORT"),
        ("http://[::1", "which is no address"),
        ("postgresql+nodriver://u@127.0.0.1:9/x", "MLFLOW_TRACKING_URI|database"),
        ("foo://x", "refuses this"),
    ],
)
def test_a_wrong_address_of_mlflow(uri: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError) as caught:
        client()
    assert any(word in str(caught.value) for word in words.split("|"))


def test_a_deleted_experiment_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gone-{os.getpid()}"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    mlflow = client()
    id = mlflow.create_experiment(name)
    mlflow.delete_experiment(id)
    with (
        pytest.raises(UserError, match=f"{name}.* has been deleted; .*--experiment-id {id}"),
        stage_run("prepare", {}),
    ):
        pass
