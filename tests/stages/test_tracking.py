"""How runs in MLflow end."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stages.plumbing.runtime import Interrupted
from stages.plumbing.tracking import ending


@pytest.mark.parametrize(
    ("raised", "status"),
    [(None, "FINISHED"), (ValueError(), "FAILED"), (Interrupted("a signal", 143), "KILLED")],
)
def test_a_run_ends_as_its_work_does(raised: BaseException | None, status: str, tmp_path: Path) -> None:
    mlflow = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = [mlflow.create_run("0").info.run_id for _ in range(2)]
    with contextlib.suppress(ValueError, Interrupted), ending(mlflow, *runs):
        if raised is not None:
            raise raised
    assert [mlflow.get_run(run).info.status for run in runs] == [status, status]
