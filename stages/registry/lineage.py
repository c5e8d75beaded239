"""Where a version comes from, and how to find it from there: the two ends of its lineage."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mlflow import MlflowClient

from stages.plumbing.files import EXPORT, RETRAIN, SEARCH_RESULTS
from stages.plumbing.tracking import git_commit, run_that_made
from stages.registry.record import Origin

DVC_LOCK = Path("dvc.lock")


def origin(mlflow: MlflowClient, model_sha256: str, data_sha256: str, run_id: str) -> Origin:
    """What the version is made from: file, data, code, and the runs of the stages before. ``run_id``: of register."""
    return Origin(
        model_sha256=model_sha256,
        data_sha256=data_sha256,
        dvc_lock_sha256=_sha256sum(DVC_LOCK),
        git_commit=git_commit(),
        prefect_flow_run=os.environ.get("MSDARTS_FLOW_RUN"),
        runs={**runs_before(mlflow), "register": run_id},
    )


def runs_before(mlflow: MlflowClient) -> dict[str, str | None]:
    """Stage -> the run that made its artifacts; None where the tracking store has no such run."""
    return {
        "search": run_that_made(mlflow, *SEARCH_RESULTS),
        "retrain": run_that_made(mlflow, RETRAIN),
        "export": run_that_made(mlflow, EXPORT),
    }


def tags(origin: Origin) -> dict[str, str]:
    """The origin as tags of the version."""
    known = origin.model_dump(exclude={"runs"}, exclude_none=True)
    return {
        **{name: str(value) for name, value in known.items()},
        **{f"run_{stage}": run_id for stage, run_id in origin.runs.items() if run_id},
    }


def link(mlflow: MlflowClient, run_id: str, version: str) -> None:
    """Adds the version to those that a run led to: the other end of the version's ``run_`` tags."""
    before = mlflow.get_run(run_id).data.tags.get("registered_as", "").split()
    if version not in before:
        mlflow.set_tag(run_id, "registered_as", " ".join([*before, version]))


def _sha256sum(path: Path) -> str | None:
    """As ``sha256sum`` prints it; None when there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
