"""What a sweep is asked for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.command import yaml_value
from pipelines.graph import Stage, stages
from pipelines.trials import EPOCHS, SEED, TARGETS, RankBy, Trial, plan
from stages import tasks
from stages.errors import UserError
from stages.evaluation import Metric
from stages.plumbing import watched
from stages.plumbing.settings import PARAMS_FILE, load

MEASURE = "latency.always"
SHORT = 10  # a short retraining has this fraction of the epochs of a full one: 1/10


@dataclass(frozen=True)
class Request:
    """A sweep whose parameters make sense."""

    params: Mapping[str, Any]  # changed in all trials
    trials: Sequence[Trial]
    chain: Sequence[Stage]  # what each trial runs
    varied: Sequence[str]  # keys in which trials differ
    rank_by: RankBy
    metric: Metric  # what ranks: the form of the task's metric that registry.metric names


def checked(
    seeds: int | Sequence[int],
    params: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    rank_by: RankBy,
    ranking_epochs: int | None,
) -> Request:
    """The trials that are asked for. Raises UserError for what no trial could do, or what would have no effect."""
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _check_keys(seeds, numbers, params, grid)
    params = _with_latency(params, grid)
    base = load(PARAMS_FILE, params)
    if rank_by == "search" and ranking_epochs is not None:
        raise UserError(f"ranking_epochs is {ranking_epochs}; it needs rank_by to be short-retrain")
    if rank_by == "short-retrain":
        if EPOCHS in grid:
            raise UserError(
                f"grid: {EPOCHS} is set by ranking_epochs while trials are ranked; use ranking_epochs"
            )
        ranking_epochs = max(1, base.retrain.epochs // SHORT) if ranking_epochs is None else ranking_epochs
    trials = plan(numbers, params, grid, ranking_epochs)
    settings = [load(PARAMS_FILE, trial.changes) for trial in trials]
    for data in {each.data.model_dump_json(): each.data for each in settings}.values():
        watched.check(data)
    active = set().union(*(each.active_keys() for each in settings))
    chain = stages(Path.cwd(), TARGETS[rank_by])
    for key in grid:
        if not any(stage.reads(key) for stage in chain):
            raise UserError(
                f"grid: {key} has no effect up to {TARGETS[rank_by]}, where trials are compared;"
                f" put it in params{', or rank by short-retrain' if rank_by == 'search' else ''}"
            )
        if not any(name == key or name.startswith(f"{key}.") for name in active):
            raise UserError(
                f"grid: {key} has no effect, because other settings turn it off in all trials (search.strategy is"
                f" {base.search.strategy}); change these, or leave {key} out"
            )
    metric = base.registry.judged_by(tasks.metric(base))
    return Request(params, trials, chain, [SEED, *grid], rank_by, metric)


def _with_latency(params: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> Mapping[str, Any]:
    """The parameters of a sweep over settings of latency: all trials measure, also one without a budget.

    So all of them share one table, and the latency of every found network is known.
    """
    if MEASURE in grid or not any(key.partition(".")[0] == "latency" for key in grid):
        return params
    return {MEASURE: True, **params}


def _check_keys(
    seeds: int | Sequence[int],
    numbers: Sequence[int],
    params: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
) -> None:
    """Raises UserError for values that are given twice, or in two places."""
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(
            f"seeds is {seeds}; it should be how many, 1 or more, or a list without repetitions (as an option, the seed 0"
            " alone is `--seeds 0,`)"
        )
    for key in (*params, *grid):
        if key == SEED:
            raise UserError(f"{SEED} is among the parameters; give its values as seeds")
        if key in params and key in grid:
            raise UserError(f"{key} is in params and in grid; it should be in one of them")
    for key, values in grid.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise UserError(f"grid: {key} is {values}; it should be a list without repetitions")


def seeds_from(text: str) -> int | list[int]:
    """ "3" as a number, "3,5" (or "3,") as a list. Raises UserError."""
    try:
        return [int(seed) for seed in text.split(",") if seed.strip()] if "," in text else int(text)
    except ValueError:
        raise UserError(
            f"--seeds is {text!r}; it should be a number, or numbers separated by commas"
        ) from None


def grid_from(text: str) -> tuple[str, list[Any]]:
    """``search.channels=8,16`` as a key and its values. Raises UserError."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise UserError(f"--grid {text} has no values; write it as KEY=VALUE,VALUE")
    return key.strip(), yaml_value(f"[{values}]", f"--grid {text}")
