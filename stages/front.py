"""The front of a sweep: how good networks are against how long they take, trial by trial.

The flow ``sweep`` writes it beside the winner's artifacts, and shows the same table and picture in MLflow and Prefect.
A front belongs to the network that has won: ``current`` finds the one that belongs to what is in artifacts/ now.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from pydantic import BaseModel, ConfigDict

from stages.evaluation import Metric
from stages.pictures import INK, File
from stages.plumbing.files import ARTIFACTS, GENOTYPE_JSON, sha256_of
from stages.records import Record

FRONT = ARTIFACTS / "sweep" / "front.json"
TITLE = "The front of the sweep"
_TRIAL, _WINNER, _LINE = "#2b6cb0", "#c05621", "#718096"
_MARKERS = {True: "o", False: "D"}  # measured; predicted only


class Point(BaseModel):
    """A trial whose network's latency is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    trial: str  # its seed and the values in which it differs from others
    experiment: str
    budget_ms: float | None = None
    latency_ms: float
    measured: bool  # on the device; otherwise predicted
    score: float
    winner: bool


class Front(Record):
    """front.json: the trials, the fastest first."""

    genotype_sha256: str  # of the winner's genotype.json
    ranked_by: str  # what the scores are, in words
    device: str
    points: list[Point]


def best_of(points: Sequence[Point], metric: Metric) -> list[Point]:
    """The front: points that no other beats in score without being slower. The fastest first."""
    found: list[Point] = []
    ordered = sorted(points, key=lambda point: (point.latency_ms, -metric.gain(point.score, 0.0)))
    for point in ordered:
        if not found or metric.better(point.score, found[-1].score):
            found.append(point)
    return found


def current(metric: Metric) -> Front | None:
    """The front whose winner is the network in artifacts/; None where there is none."""
    if not FRONT.is_file():
        return None
    front = Front.read(FRONT, metric)
    return front if front.genotype_sha256 == sha256_of(GENOTYPE_JSON) else None


def write(folder: Path, front: Front, metric: Metric) -> None:
    """Writes front.json into a project or workspace."""
    path = folder / FRONT
    path.parent.mkdir(parents=True, exist_ok=True)
    front.write(path, metric)


def table(front: Front, metric: Metric) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows for readers: one row per point."""
    best = best_of(front.points, metric)
    heads = ("trial", "budget, ms", "latency, ms", "known how", front.ranked_by, "on the front")
    return heads, [
        (
            f"{point.trial}{' (winner)' if point.winner else ''}",
            "none" if point.budget_ms is None else f"{point.budget_ms:g}",
            f"{point.latency_ms:.3g}",
            "measured" if point.measured else "predicted",
            metric.text(point.score),
            "yes" if point in best else "no",
        )
        for point in front.points
    ]


def draw(file: File, front: Front, metric: Metric) -> None:
    """Score against latency. The line joins the points of the front; filled points are measured, the others predicted."""
    figure = Figure(figsize=(5.6, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    best = best_of(front.points, metric)
    axes.step(
        [point.latency_ms for point in best],
        [point.score for point in best],
        where="post",
        color=_LINE,
        linewidth=1.2,
        label="front",
        zorder=1,
    )
    labelled: set[str] = set()
    slowest = max(point.latency_ms for point in front.points)
    for number, point in enumerate(sorted(front.points, key=lambda point: point.latency_ms)):
        colour = _WINNER if point.winner else _TRIAL
        words = ("winner" if point.winner else "trial") + ("" if point.measured else ", predicted")
        axes.scatter(
            point.latency_ms,
            point.score,
            s=90 if point.winner else 36,
            marker="*" if point.winner else _MARKERS[point.measured],
            color=colour if point.measured else "none",
            edgecolors=colour,
            label=None if words in labelled else words,
            zorder=2,
        )
        labelled.add(words)
        words = "no budget" if point.budget_ms is None else f"{point.budget_ms:g} ms"
        axes.annotate(
            words,
            (point.latency_ms, point.score),
            # Above and below by turns, because neighbours would cover each other.
            xytext=(-6 if point.latency_ms > 0.8 * slowest else 6, 6 if number % 2 == 0 else -12),
            textcoords="offset points",
            ha="right" if point.latency_ms > 0.8 * slowest else "left",
            fontsize=7,
            color=INK,
        )
    axes.set_xlabel(f"latency of the found network (ms)\n{front.device}", fontsize=8)
    axes.set_ylabel(front.ranked_by, fontsize=9)
    if metric.outcomes == "right or wrong":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.set_xlim(0, 1.12 * slowest)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(file)
