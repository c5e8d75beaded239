"""What a comparison records: one MLflow run above those of its trainings, and a Prefect artifact."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from pipelines.comparing import shown
from pipelines.summary import embedded
from pipelines.sweep_report import SweepRun
from stages import tasks
from stages.compare.jobs import Plan
from stages.comparison import COMPARE, COMPARE_JSON, TITLE, ComparisonRecord, sentences, table
from stages.evaluation import Metric
from stages.plumbing.settings import PARAMS_FILE, load
from stages.plumbing.tracking import (
    PARENT,
    client,
    ending,
    experiment_id,
    git_commit,
    reported,
)

Run = SweepRun  # a run above others


@contextlib.contextmanager
def compare_run(plan: Plan) -> Iterator[Run]:
    """The comparison's run: that of an earlier comparison of the same cell, or a new one. Ends as its block does."""
    mlflow = client()
    with reported():
        experiment = experiment_id(mlflow)
        before = mlflow.search_runs([experiment], f"tags.comparison = '{plan.identity}'", max_results=1)
        tags = {"comparison": plan.identity, "stage": "compare", "git_commit": git_commit()}
        run = (
            before[0]
            if before
            else mlflow.create_run(experiment, run_name=flow_run.name or "compare", tags=tags)
        )
        mlflow.update_run(run.info.run_id, status="RUNNING")
    with ending(mlflow, run.info.run_id):
        yield Run(mlflow, experiment, run.info.run_id)


def below(run: Run) -> dict[str, str]:
    """The variable that makes runs of trainings children of this one."""
    return {PARENT: run.id}


def publish(run: Run, folder: Path) -> str:
    """Publishes compare.json in MLflow, as a Prefect artifact, on the card and in the report. Returns the outcome."""
    metric = tasks.metric(load(folder / PARAMS_FILE))
    record = ComparisonRecord.read(folder / COMPARE_JSON, metric)
    with reported():
        for name, value in numbers(record).items():
            run.mlflow.log_metric(run.id, name, value)
        for file in sorted(file for file in (folder / COMPARE).iterdir() if file.is_file()):
            run.mlflow.log_artifact(run.id, str(file))
        run.mlflow.set_tag(run.id, "outcome", sentences(record, metric)[0])
    text = markdown(record, metric, folder, run.page)
    create_markdown_artifact(markdown=text, key="compare", description=TITLE)
    later = "" if shown(folder) else "; card and report will show it after `make repro`"
    return sentences(record, metric)[0].removesuffix(".") + later


def numbers(record: ComparisonRecord) -> dict[str, float]:
    """The metrics of the run."""
    found: dict[str, float] = {"found": record.found.mean}
    leads = dict(record.baselines)
    if record.random is not None:
        leads["random"] = record.random.difference
        found["percentile"] = record.random.percentile
        found["relative_improvement"] = record.random.relative_improvement
    if record.best_of is not None:
        leads["best_of_random"] = record.best_of.difference
        found["best_of_cells"] = record.best_of.cells
    for name, lead in leads.items():
        for part, value in (("", lead.mean), ("_low", lead.low), ("_high", lead.high)):
            found[f"lead_over_{name}{part}"] = value
    if record.search_minutes is not None:
        found["search_minutes"] = record.search_minutes
    found["training_minutes"] = record.found.minutes
    return found


def markdown(record: ComparisonRecord, metric: Metric, folder: Path, page: str) -> str:
    """The text of the Prefect artifact: the outcome, all networks, and the picture."""
    heads, rows = table(record, metric)
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
    said = "\n".join(f"- {sentence}" for sentence in sentences(record, metric))
    picture = embedded(folder / COMPARE / "scores.png")
    return "\n\n".join([f"**{TITLE}**", said, lines, f"[MLflow run]({page})", f"![All networks]({picture})"])
