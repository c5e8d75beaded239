"""MLflow tracking: one parent run per pipeline execution, and below it one run per stage that ran.

The store is SQLite in the project's folder unless MLFLOW_TRACKING_URI names another one. A run is found by the hash
of its artifacts (tag ``artifacts_sha256``), so that lineage survives checkouts and cleared stores.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from models.training.events import Row
from stages.errors import MachineError, UserError
from stages.plumbing import limits, run_row
from stages.plumbing.files import sha256_of
from stages.plumbing.naming import since_commit
from stages.plumbing.pipeline import PipelineRun
from stages.plumbing.refusals import check_sqlite, of_mlflow
from stages.plumbing.runtime import TEMPORARY, pipeline_process
from stages.records import DataCard

DEFAULT_EXPERIMENT = "msdarts"
PARENT = "MSDARTS_PARENT_RUN"  # variable: the run above those of the trainings of a comparison
_NOT_IN_NAMES = r"[^a-zA-Z0-9_. -]"  # characters that MLflow does not allow in names of metrics


def project_folder() -> Path:
    """The folder that keeps the results: the project's own, even when called from a temporary workspace inside it."""
    here = Path.cwd()
    for folder in here.parents:
        if here.is_relative_to(folder / TEMPORARY):
            return folder
    return here


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or SQLite in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_folder() / 'mlflow.db'}"


def client() -> MlflowClient:
    """A client of the tracking store. Raises MachineError when its server cannot be reached, UserError when its address is wrong."""
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
        except urllib.error.HTTPError:
            pass  # the server answers; a request that it refuses raises its own error
        except (ValueError, HTTPException) as error:
            raise UserError(
                f"MLFLOW_TRACKING_URI is {uri!r}, which is no address ({error}); write http://HOST:PORT"
            ) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise MachineError(
                f"the MLflow server {uri} cannot be reached ({reason}); start it, correct MLFLOW_TRACKING_URI, or"
                " unset it to use the SQLite file"
            ) from None
    elif uri.startswith("file:") or "://" not in uri:
        raise UserError(
            f"MLFLOW_TRACKING_URI is {uri!r}, a plain folder, which MLflow no longer supports; use sqlite:///FILE.db"
            " or the address of a server"
        )
    check_sqlite(uri)
    with reported():
        try:
            return MlflowClient(tracking_uri=uri)
        except ImportError as error:  # of the database's driver
            raise of_mlflow(error, uri) from None


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turns errors of MLflow and of its database into a UserError or a MachineError with a message of one line."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise of_mlflow(error, tracking_uri()) from error


def experiment_id(mlflow: MlflowClient) -> str:
    """The id of the experiment, made on first use. Artifacts are kept beside a local store."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    found = mlflow.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment {name!r} has been deleted; `mlflow experiments restore --experiment-id"
            f" {found.experiment_id}` brings it back, or MLFLOW_EXPERIMENT_NAME names another"
        )
    if found is not None:
        return found.experiment_id
    local = tracking_uri().startswith("sqlite:")
    location = (project_folder() / "mlruns").as_uri() if local else None
    try:
        return mlflow.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process has made it in the meantime
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def git_commit() -> str:
    """The commit of the working tree, with ``-dirty`` when tracked files differ from it; "none" outside git.

    dvc.lock does not count: it records results, and the stages themselves change it.
    """
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "none"
    return (
        f"{commit}-dirty"
        if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
        else commit
    )


def _git(*arguments: str) -> str:
    """What git prints; nothing where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


class StageRun:
    """The MLflow run of one stage."""

    def __init__(self, mlflow: MlflowClient, run: Run):
        self.mlflow, self.id = mlflow, run.info.run_id

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs a section of params.yaml, flattened with dots."""
        with reported():
            flat = [Param(name, self._kept(name, str(value), limits.PARAM)) for name, value in _flat(params)]
            self.mlflow.log_batch(self.id, params=flat)

    def dataset(self, card: DataCard, source: str) -> None:
        """Logs the data set: name, hash, source, counts, and what a case looks like."""
        about = {
            "source": (json.dumps({"uri": source}), limits.SOURCE),
            "schema": (json.dumps(card.schema_of_a_case()), limits.SCHEMA),
            "profile": (json.dumps(card.counts), limits.SCHEMA),
        }
        with reported():
            kept = {
                name: self._kept(f"dataset_{name}", text, most, limits.beginning_as_json)
                for name, (text, most) in about.items()
            }
            name = limits.short_name(card.name, limits.DATASET_NAME)
            dataset = Dataset(name=name, digest=run_row.digest(card), source_type="local", **kept)
            self.mlflow.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "all")])])

    def row(self, row: Row, **extra: float) -> None:
        """Logs one epoch of the history as metrics, with the epoch as step."""
        now, step = int(time.time() * 1000), int(row["epoch"] or 0)
        values = {
            name: value for name, value in {**row, **extra}.items() if value is not None and name != "epoch"
        }
        with reported():
            self.mlflow.log_batch(
                self.id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()]
            )

    def rows_missing(self, rows: Sequence[Row], metric: str) -> None:
        """Logs the epochs that are missing after an interruption. ``metric`` is a metric that every epoch has."""
        with reported():
            steps = {point.step for point in self.mlflow.get_metric_history(self.id, metric)}
        for row in rows:
            if row["epoch"] not in steps:
                self.row(row)

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Logs the numbers in ``values``, ignoring other values. Slashes join the names of nested mappings."""
        now = int(time.time() * 1000)
        with reported():
            self.mlflow.log_batch(
                self.id, metrics=[Metric(name, value, now, 0) for name, value in _numbers(values).items()]
            )

    def artifacts(self, *paths: Path, pictures: Sequence[Path] = ()) -> None:
        """Logs files, or all files of folders, and tags the run with their hash. The hash excludes pictures."""
        files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.iterdir()))]
        with reported():
            for file in (*files, *pictures):
                self.mlflow.log_artifact(self.id, str(file))
            self.tags(artifacts_sha256=sha256_of(*files))

    def tags(self, **tags: str) -> None:
        with reported():
            kept = [RunTag(name, self._kept(name, value, limits.PARAM)) for name, value in tags.items()]
            self.mlflow.log_batch(self.id, tags=kept)

    def _kept(
        self, name: str, value: str, most: int, beginning: Callable[[str, str], str] = limits.beginning
    ) -> str:
        """The value or, when it is too long for MLflow, its beginning; all of it is then a file of the run."""
        if len(value) <= most:
            return value
        with limits.in_file(name, value) as file:
            self.mlflow.log_artifact(self.id, str(file), limits.FOLDER)
        return beginning(name, value)


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        key = f"{prefix}{re.sub(_NOT_IN_NAMES, '_', name)}"
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[limits.short_name(key)] = float(value)
    return found


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@contextlib.contextmanager
def stage_run(
    stage: str,
    params: Mapping[str, Any],
    resume: str | None = None,
    *,
    name: str | None = None,
    parent: str | None = None,
) -> Iterator[StageRun]:
    """The run of a stage, a child of the run of its pipeline execution. ``resume`` is the id of an interrupted run.

    Both runs end as FINISHED, FAILED or KILLED. The next stage of the execution sets the parent to RUNNING again. The
    parent gets the numbers that are known when the stage begins and ends. If ``parent`` is given, that run is the parent
    instead and is left as it is.
    """
    mlflow = client()
    with reported():
        experiment = experiment_id(mlflow)
        above = parent or _parent(mlflow, experiment)
        run = _resumed(mlflow, resume)
        if run is None:
            run = mlflow.create_run(
                experiment, run_name=name or stage, tags={"stage": stage, "git_commit": git_commit()}
            )
        for tag, value in {"mlflow.parentRunId": above, "mlflow.source.name": f"stages/{stage}.py"}.items():
            mlflow.set_tag(run.info.run_id, tag, value)
        ids = [run.info.run_id, *([] if parent else [above])]
        for id in ids:
            mlflow.update_run(id, status="RUNNING")
    stage_run = StageRun(mlflow, run)
    stage_run.params(params)
    row = None if parent or stage not in run_row.STAGES else above
    with ending(mlflow, *ids):
        _update(mlflow, row, stage, ended=False)
        yield stage_run
        _update(mlflow, row, stage, ended=True)


def _update(mlflow: MlflowClient, row: str | None, stage: str, *, ended: bool) -> None:
    """Adds what is known now to the run above the stage's; None: that run is left as it is."""
    if row is not None:
        with reported():
            run = mlflow.get_run(row)
            run_row.update(StageRun(mlflow, run), run, stage, ended=ended)


@contextlib.contextmanager
def ending(mlflow: MlflowClient, *ids: str) -> Iterator[None]:
    """Ends runs with the block: FINISHED, FAILED after an Exception, KILLED otherwise (Interrupted, cancelled)."""
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        # If the server cannot be reached now, that must not hide the error that ended the block.
        with contextlib.suppress(MlflowException) if status != "FINISHED" else reported():
            for id in ids:
                mlflow.set_terminated(id, status=status)


def _resumed(mlflow: MlflowClient, id: str | None) -> Run | None:
    if id is None:
        return None
    try:
        return mlflow.get_run(id)
    except MlflowException:  # the store was cleared in the meantime
        return None


def _parent(mlflow: MlflowClient, experiment: str) -> str:
    """The run of this pipeline execution: the one that an earlier stage made, that of an interrupted execution, or a new one."""
    process = pipeline_process() or psutil.Process()
    execution = os.environ.get("MSDARTS_EXECUTION") or f"{process.pid}-{process.create_time():.2f}"
    before = PipelineRun.read(Path())
    last = None
    if before is not None and before.tracking_uri == tracking_uri():
        last = _resumed(mlflow, before.run_id)
        if last is not None and before.execution == execution:
            return before.run_id
    name, tags = limits.short_name(run_row.name()), run_row.tags(git_commit())
    if last is not None and run_row.goes_on(last, name, tags):
        run = last
    else:
        if last is not None and last.info.status == "RUNNING":
            mlflow.set_terminated(last.info.run_id, status="KILLED")
        run = mlflow.create_run(experiment, run_name=name)
        StageRun(mlflow, run).params(since_commit())
    StageRun(mlflow, run).tags(**tags)
    made = PipelineRun(
        execution=execution, run_id=run.info.run_id, experiment_id=experiment, tracking_uri=tracking_uri()
    )
    made.write()
    return made.run_id


def run_that_made(mlflow: MlflowClient, *paths: Path) -> str | None:
    """The id of the newest run whose artifacts have the same hash as these files or folders, or None."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.iterdir()))]
    with reported():
        found = mlflow.search_runs(
            [experiment_id(mlflow)],
            filter_string=f"tags.artifacts_sha256 = '{sha256_of(*files)}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    return found[0].info.run_id if found else None
