"""A trial of a sweep: its parameters, its workspace, and how good it turned out to be.

Also what a worker of a task runner executes, because a worker in another process must be able to import it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from pipelines.command import failed
from pipelines.dvc_internals import up_to_date
from pipelines.graph import Stage
from pipelines.nas import execute_all
from pipelines.workspace import workspace
from stages import tasks
from stages.errors import MachineError, UserError
from stages.evaluation import Metric
from stages.found_latency import FoundLatency
from stages.plumbing.files import RETRAIN, SEARCH
from stages.plumbing.naming import experiment_name
from stages.plumbing.settings import PARAMS_FILE, load
from stages.records import RetrainMetrics, SearchSummary

SEED = "search.seed"
EPOCHS = "retrain.epochs"
RankBy = Literal["search", "short-retrain"]
TARGETS: dict[RankBy, str] = {"search": "discretize", "short-retrain": "retrain"}  # the last stage of a trial

RANKED: dict[RankBy, str] = {  # what is compared, in words
    "search": "validation {} of the search",
    "short-retrain": "validation {} after a short retraining",
}


@dataclass(frozen=True)
class Trial:
    """One point of the grid with one seed."""

    seed: int
    point: Mapping[str, Any]  # of the grid: key -> value
    changes: Mapping[str, Any]  # of params.yaml, for the trial
    final: Mapping[str, Any]  # of params.yaml, for the whole pipeline if this trial wins

    @cached_property  # so that it stays what it was when the sweep began
    def name(self) -> str:
        """The name of its DVC experiment and its run in MLflow."""
        return experiment_name(self.changes)

    def __str__(self) -> str:
        return " ".join([f"seed {self.seed}", *self.values])

    @property
    def values(self) -> list[str]:
        """What it has of the grid, as a user would write it: latency.budget_ms=null."""
        return [f"{key}={written(value)}" for key, value in self.point.items()]


def written(value: Any) -> str:
    """A value as YAML has it, where Python writes it otherwise."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    trial: Trial
    state: Literal["ran", "cached", "failed"]
    score: float | None  # on the validation cases, by the metric that ranks; None: it failed
    error: str = ""  # one line
    bad_input: bool = False  # only the user can fix it
    run_id: str = ""  # of MLflow
    others: Mapping[str, float | None] = field(
        default_factory=dict
    )  # the scores by the other forms of the metric
    latency: FoundLatency | None = None  # of the found network, where it is known


def plan(
    seeds: Sequence[int],
    params: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    ranking_epochs: int | None,
) -> list[Trial]:
    """Every seed with every point of the grid, seed by seed. Ties are broken in this order."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    short = {} if ranking_epochs is None else {EPOCHS: ranking_epochs}
    trials = []
    for seed, point in itertools.product(seeds, points):
        final = {**params, **point, SEED: seed}
        trials.append(Trial(seed, point, {**final, **short}, final))
    return trials


def winner(results: Sequence[Result], metric: Metric) -> Result | None:
    """The result with the best score, and among equals the first of the plan. None when all have failed."""
    best: Result | None = None
    for result in results:
        if result.score is None:
            continue
        if best is None or best.score is None or metric.better(result.score, best.score):
            best = result
    return best


def scores(folder: Path, rank_by: RankBy) -> dict[str, float | None]:
    """Metric -> validation score in a workspace: of the search at the epoch of the cell, or of retraining.

    The metrics are the forms of the task's metric. The test cases play no part in the scores. Raises UserError when a
    file is missing or damaged.
    """
    params = load(folder / PARAMS_FILE)
    metric = tasks.metric(params)
    if rank_by == "short-retrain":
        retrained = RetrainMetrics.read(folder / RETRAIN / "metrics.json", metric)
        found = (retrained.valid_score, retrained.valid_balanced_score)
    else:
        summary, epoch = SearchSummary.read(folder / SEARCH / "summary.json", metric), params.discretize.epoch
        found = (summary.chosen_score(epoch), summary.chosen_balanced_score(epoch))
    return {form.name: score for form, score in zip(metric.forms, found, strict=False)}


def finished(folder: Path, chain: Sequence[Stage]) -> bool:
    """Whether every stage of the chain is up to date in this workspace, apart from those that are always called."""
    return up_to_date(folder, *(stage.name for stage in chain if not stage.always))


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(
    name: str,
    project: Path,
    changes: dict[str, Any],
    chain: list[Stage],
    timeout_hours: float,
    environment: dict[str, str],
) -> State:
    """Runs the stages of one trial in its workspace. Every worker sees ``project`` at the same path."""
    if Path.cwd() != project:  # in a process of Ray or Dask; threads share the flow's current folder
        os.chdir(project)
    try:
        with workspace(changes, get_run_logger().info) as folder:
            state = execute_all(chain, folder, timeout_hours, environment=environment)
    except (UserError, MachineError, OSError) as error:
        return failed(error)
    return Completed(message=f"{name} is done") if state.is_completed() else state
