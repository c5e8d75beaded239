"""A trial of a sweep: parameters of its own, the workspace that belongs to them, and how good it turned out to be.

What a worker of a task runner does is here too, in a module that a worker of another process can import.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from pipelines.command import BAD_INPUT
from pipelines.dvc_internals import up_to_date
from pipelines.graph import Stage
from pipelines.nas import execute_all
from pipelines.workspace import experiment_name, workspace
from stages.errors import UserError
from stages.plumbing.files import RETRAIN, SEARCH, read_json
from stages.plumbing.settings import load

SEED = "search.seed"
EPOCHS = "retrain.epochs"
RankBy = Literal["search", "short-retrain"]
TARGETS: dict[RankBy, str] = {"search": "discretize", "short-retrain": "retrain"}  # the last stage of a trial


@dataclass(frozen=True)
class Trial:
    """One point of the grid with one seed."""

    seed: int
    point: Mapping[str, Any]  # of the grid: key -> value
    changes: Mapping[str, Any]  # of params.yaml, for the trial
    final: Mapping[str, Any]  # of params.yaml, for the whole pipeline when this trial has won

    @property
    def name(self) -> str:
        """Its name among DVC's experiments."""
        return experiment_name(self.changes)

    def __str__(self) -> str:
        return " ".join([f"seed {self.seed}", *(f"{key}={value}" for key, value in self.point.items())])


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    trial: Trial
    state: Literal["ran", "cached", "failed"]
    accuracy: float | None  # on the validation images; None: it failed
    error: str = ""  # one line
    bad_input: bool = False  # only the user can mend it
    run_id: str = ""  # of MLflow


def plan(
    seeds: Sequence[int],
    params: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    ranking_epochs: int | None,
) -> list[Trial]:
    """Every seed with every point of the grid, seed by seed: the order that ties are broken by."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    short = {} if ranking_epochs is None else {EPOCHS: ranking_epochs}
    trials = []
    for seed, point in itertools.product(seeds, points):
        final = {**params, **point, SEED: seed}
        trials.append(Trial(seed, point, {**final, **short}, final))
    return trials


def winner(results: Sequence[Result]) -> Result | None:
    """The highest accuracy; of equals the first of the plan. None when all have failed."""
    ranked = [result for result in results if result.accuracy is not None]
    return max(ranked, key=lambda result: result.accuracy or 0.0, default=None)


def accuracy(folder: Path, rank_by: RankBy) -> float:
    """The validation accuracy in a workspace: of the search, at the epoch the cell was taken from, or of retraining.

    The test images have no part in it. Raises UserError when a file is absent or damaged.
    """
    if rank_by == "short-retrain":
        return read_json(folder / RETRAIN / "metrics.json")["valid_accuracy"]
    best = load(folder / "params.yaml").discretize.epoch == "best"
    return read_json(folder / SEARCH / "summary.json")["best_valid_accuracy" if best else "valid_accuracy"]


def finished(folder: Path, chain: Sequence[Stage]) -> bool:
    """Whether no stage of the chain has anything to do in this workspace."""
    return up_to_date(folder, *(stage.name for stage in chain))


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(
    name: str,
    project: Path,
    changes: dict[str, Any],
    chain: list[Stage],
    timeout_hours: float,
    environment: dict[str, str],
) -> State:
    """The stages of one trial, in its workspace of ``project``, which every worker sees at the same path."""
    if Path.cwd() != project:  # a process that Ray or Dask has started; threads share the flow's own folder
        os.chdir(project)
    try:
        with workspace(changes, get_run_logger().info) as folder:
            state = execute_all(chain, folder, timeout_hours, environment=environment)
    except UserError as error:
        return Failed(name=BAD_INPUT, message=str(error))
    return state if state.is_failed() else Completed(message=f"{name} is done")
