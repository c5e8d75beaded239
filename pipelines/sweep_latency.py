"""What trials of a sweep have to do with latency: they share one table, and together they are a front."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.trials import RANKED, RankBy, Result, Trial
from stages.evaluation import Metric
from stages.front import Front, Point
from stages.plumbing.files import GENOTYPE_JSON, LATENCY, LATENCY_JSON, read_json, sha256_of


def share_table(base: Path, folder: Path) -> None:
    """Gives a trial the measurements of the folder in which all trials' were made, if they differ from its own.

    The trial's stage measure looks whether they are right, and repeats none.
    """
    if _identity(base) not in (None, _identity(folder)):
        shutil.rmtree(folder / LATENCY, ignore_errors=True)
        shutil.copytree(base / LATENCY, folder / LATENCY)


def front_of(
    results: Sequence[Result],
    best: Result | None,
    rank_by: RankBy,
    metric: Metric,
    folder_of: Callable[[Trial], Path],
) -> Front | None:
    """The trials whose networks' latency is known, the fastest first; None where there are fewer than two of them."""
    points = [
        Point(
            trial=str(result.trial),
            experiment=result.trial.name,
            budget_ms=result.latency.budget_ms,
            latency_ms=result.latency.found.ms,
            measured=result.latency.found.measured_ms is not None,
            score=result.score,
            winner=result is best,
        )
        for result in results
        if result.latency is not None and result.score is not None
    ]
    if best is None or best.latency is None or len(points) < 2:
        return None
    return Front(
        genotype_sha256=sha256_of(folder_of(best.trial) / GENOTYPE_JSON),
        ranked_by=RANKED[rank_by].format(metric.words),
        device=f"{best.latency.processor or 'unknown device'}, {best.latency.conditions}",
        points=sorted(points, key=lambda point: point.latency_ms),
    )


def _identity(folder: Path) -> str | None:
    """What the measurements in a folder depend on; None where there are none."""
    path = folder / LATENCY_JSON
    return read_json(path).get("identity") if path.is_file() else None
