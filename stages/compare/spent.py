"""How long the search took, from its run in MLflow."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from mlflow import MlflowClient

from stages.plumbing.files import SEARCH_RESULTS
from stages.plumbing.tracking import client, reported, run_that_made

_MINUTE = 60_000.0  # milliseconds


def search_minutes() -> float | None:
    """The minutes of the search in artifacts/search; None when MLflow has no run of it.

    They are the median time from one epoch to the next, times the epochs. So a search that was interrupted for a night does
    not count the night.
    """
    mlflow = client()
    run_id = run_that_made(mlflow, *SEARCH_RESULTS)
    return None if run_id is None else minutes_of(mlflow, run_id)


def minutes_of(mlflow: MlflowClient, run_id: str) -> float | None:
    """The minutes of a training, from when its epochs were logged."""
    with reported():
        run, points = mlflow.get_run(run_id), mlflow.get_metric_history(run_id, "train_loss")
    logged = {point.step: point.timestamp for point in points}
    times = [logged[step] for step in sorted(logged)]
    if len(times) > 1:
        return median(after - before for before, after in pairwise(times)) * len(times) / _MINUTE
    if run.info.end_time is None:
        return None
    return (run.info.end_time - run.info.start_time) / _MINUTE
