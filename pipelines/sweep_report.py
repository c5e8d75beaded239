"""What a sweep records: one MLflow run above those of its trials, with a table and a picture of all trials."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from mlflow import MlflowClient
from mlflow.entities import Param
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from pipelines.summary import embedded, mlflow_page
from pipelines.trials import RANKED, SEED, RankBy, Result, Trial, written
from stages.evaluation import Metric
from stages.front import TITLE as FRONT_TITLE
from stages.front import Front, best_of
from stages.front import draw as draw_front
from stages.front import table as front_table
from stages.plumbing.files import REGISTRY, RETRAIN, write_rows
from stages.plumbing.pipeline import PipelineRun
from stages.plumbing.settings import PARAMS_FILE, load
from stages.plumbing.tracking import client, ending, experiment_id, git_commit, reported, tracking_uri
from stages.records import RetrainMetrics
from stages.registry.record import RegistryRecord

matplotlib.use("Agg")

_FOUND, _BEST, _FAILED = "#2b6cb0", "#c05621", "#c53030"


@dataclass(frozen=True)
class SweepRun:
    """The sweep's run in MLflow."""

    mlflow: MlflowClient
    experiment_id: str
    id: str

    @property
    def page(self) -> str:
        return f"{mlflow_page(tracking_uri())}/#/experiments/{self.experiment_id}/runs/{self.id}"


@contextlib.contextmanager
def sweep_run(trials: Sequence[Trial], rank_by: RankBy) -> Iterator[SweepRun]:
    """The sweep's run: that of an earlier sweep with the same trials, or a new one. Ends as FINISHED, FAILED or KILLED."""
    whole = [load(PARAMS_FILE, trial.changes).of_results() for trial in trials]
    key = hashlib.sha256(json.dumps([whole, rank_by], sort_keys=True).encode()).hexdigest()[:16]
    mlflow = client()
    with reported():
        experiment = experiment_id(mlflow)
        before = mlflow.search_runs([experiment], f"tags.sweep = '{key}'", max_results=1)
        tags = {"sweep": key, "stage": "sweep", "git_commit": git_commit()}
        run = (
            before[0]
            if before
            else mlflow.create_run(experiment, run_name=flow_run.name or "sweep", tags=tags)
        )
        mlflow.update_run(run.info.run_id, status="RUNNING")
        about = {"rank_by": rank_by, "trials": str(len(trials))}
        mlflow.log_batch(run.info.run_id, params=[Param(name, value) for name, value in about.items()])
    with ending(mlflow, run.info.run_id):
        yield SweepRun(mlflow, experiment, run.info.run_id)


def run_of(folder: Path) -> str:
    """The id of the MLflow run above those of a workspace's stages; empty where no stage has run."""
    pipeline = PipelineRun.read(folder)
    return pipeline.run_id if pipeline and pipeline.tracking_uri == tracking_uri() else ""


def publish(
    run: SweepRun,
    results: Sequence[Result],
    best: Result | None,
    rank_by: RankBy,
    metric: Metric,
    front: Front | None = None,
) -> None:
    """Publishes all trials in MLflow, where their runs become children of ``run``, and as a Prefect artifact."""
    with tempfile.TemporaryDirectory() as name, reported():
        table, picture = Path(name) / "trials.csv", Path(name) / "trials.png"
        write_rows(table, rows(results, best, metric))
        draw(picture, results, best, rank_by, metric)
        fronts = write_front(Path(name), front, metric) if front else []
        for result in results:
            if result.run_id:
                run.mlflow.set_tag(result.run_id, "mlflow.parentRunId", run.id)
        for file in (table, picture, *fronts):
            run.mlflow.log_artifact(run.id, str(file))
        run.mlflow.log_metric(run.id, "failed_trials", sum(result.state == "failed" for result in results))
        if best is not None and best.score is not None:
            for name, score in {metric.name: best.score, **best.others}.items():
                if score is not None:
                    run.mlflow.log_metric(run.id, f"valid_{name}", score)
            run.mlflow.set_tag(run.id, "winner", best.trial.name)
        text = markdown(results, best, rank_by, picture, run.page, metric)
        if front is not None:
            text += f"\n\n{front_in_words(front, fronts[-1], metric)}"
    create_markdown_artifact(markdown=text, key="sweep", description="All trials of the sweep")


def write_front(folder: Path, front: Front, metric: Metric) -> list[Path]:
    """Writes the front as a table and as a picture."""
    table, picture, best = folder / "front.csv", folder / "front.png", best_of(front.points, metric)
    write_rows(table, [{**point.model_dump(), "front": point in best} for point in front.points])
    draw_front(picture, front, metric)
    return [table, picture]


def front_in_words(front: Front, picture: Path, metric: Metric) -> str:
    """The front's part of the Prefect artifact."""
    heads, lines = front_table(front, metric)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *lines))
    return f"**{FRONT_TITLE}** ({front.device})\n\n{table}\n\n![{FRONT_TITLE}]({embedded(picture)})"


def publish_winner(run: SweepRun, folder: Path, child: str, metric: Metric) -> str:
    """Adds the retrained winner's results to the run, and returns them in one line. ``child``: its own run in MLflow."""
    scores = RetrainMetrics.read(folder / RETRAIN / "metrics.json", metric).tested(metric)
    registry = RegistryRecord.read(folder / REGISTRY)
    version = f"{registry.model} version {registry.version}"
    with reported():
        for form, score in scores:
            run.mlflow.log_metric(run.id, form.test_name, score)
        run.mlflow.set_tag(run.id, "registered", version)
        if child:
            run.mlflow.set_tag(child, "mlflow.parentRunId", run.id)
    said = ", ".join(f"{form.words} {form.digits(score)}" for form, score in scores)
    return f"test {said}, {version}: {registry.reason}"


def rows(results: Sequence[Result], best: Result | None, metric: Metric) -> list[dict[str, Any]]:
    """One row per trial, in the order of the plan."""
    return [
        {
            "experiment": result.trial.name,
            "seed": result.trial.seed,
            **result.trial.point,
            f"valid_{metric.name}": result.score,
            **{f"valid_{form.name}": result.others.get(form.name) for form in others_of(metric)},
            **(latency_of(result) if any(other.latency for other in results) else {}),
            "state": result.state,
            "winner": result is best,
            "error": result.error,
            "run_id": result.run_id,
        }
        for result in results
    ]


def latency_of(result: Result) -> dict[str, float | None]:
    """The columns about the latency of a trial's network."""
    found = None if result.latency is None else result.latency.found
    return {
        "latency_ms": found and found.measured_ms,
        "predicted_latency_ms": found and found.predicted_ms,
    }


def markdown(
    results: Sequence[Result],
    best: Result | None,
    rank_by: RankBy,
    picture: Path,
    page: str,
    metric: Metric,
) -> str:
    """The text of the Prefect artifact: the winner, all trials, and the embedded picture."""
    said = "Every trial has failed." if best is None else f"**{best.trial}** has won (`{best.trial.name}`)."
    others = others_of(metric)
    columns = [
        "seed",
        *results[0].trial.point,
        RANKED[rank_by].format(metric.words),
        *(form.words for form in others),
        "",
    ]
    lines = [
        [
            str(result.trial.seed),
            *map(written, result.trial.point.values()),
            "failed" if result.score is None else metric.digits(result.score),
            *(digits(result.others.get(form.name), form) for form in others),
            "**winner**" if result is best else result.error.replace("|", "\\|") or result.state,
        ]
        for result in results
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *lines))
    return "\n\n".join([said, table, f"[MLflow run]({page})", f"![All trials]({embedded(picture)})"])


def others_of(metric: Metric) -> list[Metric]:
    """The other forms of the metric that ranks, which are shown beside it."""
    return [form for form in metric.forms if form != metric]


def digits(score: float | None, metric: Metric) -> str:
    """A score in the table; empty when there is none."""
    return "" if score is None else metric.digits(score)


def draw(path: Path, results: Sequence[Result], best: Result | None, rank_by: RankBy, metric: Metric) -> None:
    """Draws the score of every trial: one column per point of the grid, with the seeds side by side."""
    points = list(dict.fromkeys(_label(result.trial) for result in results))
    seeds = list(dict.fromkeys(result.trial.seed for result in results))
    gap = 1 if len(points) > 1 else 0
    places = {
        (point, seed): column * (len(seeds) + gap) + row
        for column, point in enumerate(points)
        for row, seed in enumerate(seeds)
    }
    width = min(max(0.4 * len(places) + 0.4 * gap * len(points) + 1.5, 5.0), 24.0)
    figure = Figure(figsize=(width, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for result in results:
        x = places[_label(result.trial), result.trial.seed]
        if result.score is None:
            axes.plot(x, 0.03, "x", color=_FAILED, markersize=8, transform=axes.get_xaxis_transform())
            axes.annotate("failed", (x, 0.07), xycoords=axes.get_xaxis_transform(), rotation=90, color=_FAILED,
                          ha="center", va="bottom", fontsize=8)  # fmt: skip
            continue
        won = result is best
        axes.plot(
            x,
            result.score,
            "*" if won else "o",
            color=_BEST if won else _FOUND,
            markersize=14 if won else 7,
        )
        if won:
            axes.annotate(f"winner: {metric.text(result.score)}", (x, result.score), xytext=(0, 9),
                          textcoords="offset points", ha="center", color=_BEST, fontsize=9)  # fmt: skip
    for column, point in enumerate(points):
        drawn = [r.score for r in results if _label(r.trial) == point and r.score is not None]
        if len(drawn) > 1:
            first = column * (len(seeds) + gap)
            axes.hlines(sum(drawn) / len(drawn), first - 0.4, first + len(seeds) - 0.6, colors="#a0aec0", zorder=0,
                        label="_mean" if column else "mean")  # fmt: skip
            if not column:
                axes.legend(frameon=False, loc="lower right")
    axes.set_xticks([*places.values()], [str(seed) for _, seed in places])
    axes.set_xlabel(SEED)
    axes.set_ylabel(RANKED[rank_by].format(metric.words), fontsize=9)
    if metric.outcomes == "right or wrong":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.margins(x=0.08, y=0.2)
    axes.grid(axis="y", alpha=0.3)
    if points != [""]:
        above = axes.secondary_xaxis("top")
        middles = [column * (len(seeds) + gap) + (len(seeds) - 1) / 2 for column in range(len(points))]
        above.set_xticks(middles, points, fontsize=8)
        above.tick_params(length=0)
    figure.savefig(path)


def _label(trial: Trial) -> str:
    return "\n".join(trial.values)
