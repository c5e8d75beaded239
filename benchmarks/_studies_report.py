"""The results of `python -m benchmarks.studies` as tables and pictures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._stability_report import of_case, spread
from benchmarks._trial import Run
from models.search.landscape import Landscape
from stages.landscape_picture import heights

matplotlib.use("Agg")

DARTS, REFERENCE = "darts", "bandwidth 1.0"  # the latter has the published settings
MEASURES: Mapping[str, str] = {
    "discretization_gap": "discretization gap",
    "hessian_eigenvalue": "dominant Hessian eigenvalue",
    "rise": "rise of the loss around alpha",
    "accuracy": "test accuracy",
}
# Title of a table -> how the names of its cases begin.
TABLES: Mapping[str, Sequence[str]] = {
    "Bandwidth": (DARTS, "bandwidth"),
    "Samples": ("samples", REFERENCE),
    "Iterations": ("iterations", REFERENCE),
    "Images on which the samples are scored": (REFERENCE, "probe"),
}


def report(about: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """The results as Markdown."""
    lines = ["# Studies of the mean shift", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += [
        "Mean ± standard deviation over the seeds. The rise is how much higher the validation loss is on the rim of the",
        "landscape (1 away from alpha in root mean square, in two random directions) than at alpha.",
    ]
    for title, beginnings in TABLES.items():
        lines += ["", f"## {title}", "", f"| case | n | {' | '.join(MEASURES.values())} |"]
        lines += ["|---|---|" + "---|" * len(MEASURES)]
        for case in _cases(runs, beginnings):
            values = " | ".join(of_case(runs, case, column) for column in MEASURES)
            count = sum(run["case"] == case for run in runs)
            lines.append(f"| {case} | {count} | {values} |")
    lines += ["", "## The mean shift repeated", ""]
    lines += [
        "| samples, bandwidth | step 1 | step 2 | step 5 | step 10 | step 20 | moved in 2 | moved in 20 |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name, curve in _convergence(runs).items():
        numbers = [curve["step"][at - 1] for at in (1, 2, 5, 10, 20)]
        numbers += [curve["moved"][at - 1] for at in (2, 20)]
        lines.append(f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
    lines += [
        "",
        "Distances are Frobenius norms in mixing weights, means over seeds and draws.",
        "",
        "## Every run",
    ]
    lines += ["", f"| case | seed | {' | '.join(MEASURES.values())} | search s |", "|---|---|" + "---|" * 5]
    for case in dict.fromkeys(run["case"] for run in runs):
        for run in sorted((run for run in runs if run["case"] == case), key=lambda run: run["seed"]):
            values = " | ".join(f"{run[column]:.3f}" for column in MEASURES)
            lines.append(f"| {case} | {run['seed']} | {values} | {run['search_seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def _cases(runs: Sequence[Run], beginnings: Iterable[str]) -> list[str]:
    names = dict.fromkeys(run["case"] for run in runs)
    return [name for beginning in beginnings for name in names if name.startswith(beginning)]


def _convergence(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Means over the seeds."""
    measured = [run["convergence"] for run in runs if "convergence" in run]
    return {
        name: {
            what: [
                statistics.fmean(values)
                for values in zip(*(each[name][what] for each in measured), strict=True)
            ]
            for what in ("step", "moved")
        }
        for name in (measured[0] if measured else ())
    }


def pictures(folder: Path, runs: Sequence[Run]) -> None:
    """Draws bandwidth, convergence and landscapes, each into a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    _bandwidths(folder / "study_bandwidth.png", runs)
    _repeated(folder / "study_convergence.png", runs)
    _landscapes(folder / "study_landscape.png", runs)


def _bandwidths(path: Path, runs: Sequence[Run]) -> None:
    """Each measure against the bandwidth: points are seeds, the line is their mean; DARTS as a dashed line."""
    cases = _cases(runs, ("bandwidth",))
    figure = Figure(figsize=(3.4 * len(MEASURES), 3.4), dpi=110, layout="constrained")
    for position, (column, title) in enumerate(MEASURES.items(), start=1):
        axes = figure.add_subplot(1, len(MEASURES), position)
        values = [[run[column] for run in runs if run["case"] == case] for case in cases]
        for at, found in enumerate(values):
            axes.scatter([at] * len(found), found, color="#2b6cb0", s=16, alpha=0.6)
        means = [spread(found).mean for found in values]
        numbers = [at for at, case in enumerate(cases) if not case.endswith("auto")]
        axes.plot(numbers, [means[at] for at in numbers], color="#2b6cb0", label="MS-DARTS")
        axes.scatter(range(len(cases)), means, color="#2b6cb0", marker="_", s=160)
        darts = [run[column] for run in runs if run["case"] == DARTS]
        axes.axhline(statistics.fmean(darts), color="#c05621", linestyle="--", label="DARTS")
        axes.set_xticks(range(len(cases)), [case.removeprefix("bandwidth ") for case in cases])
        axes.set_xlabel("bandwidth")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        if position == 1:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _repeated(path: Path, runs: Sequence[Run]) -> None:
    """Distance between iterates, and distance from the mix, over the iterations."""
    curves = _convergence(runs)
    colours = {"0.1": "#2f855a", "1.0": "#2b6cb0", "auto": "#c05621"}
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    titles = {
        "step": "distance from one iterate to the next",
        "moved": "distance from the mix to the iterate",
    }
    for position, (what, title) in enumerate(titles.items(), start=1):
        axes = figure.add_subplot(1, 2, position)
        for name, curve in curves.items():
            samples, bandwidth = name.split(", ")
            style = "-" if samples == "redrawn" else ":"
            axes.plot(
                range(1, len(curve[what]) + 1), curve[what], style, color=colours[bandwidth], label=name, marker=".", markersize=4
            )  # fmt: skip
        if what == "step":
            axes.set_yscale("log")
            axes.set_ylim(bottom=1e-6)  # below, float32 cannot tell the iterates apart
            axes.yaxis.set_major_formatter("{x:g}")
            axes.legend(
                frameon=False,
                fontsize=8,
                ncols=2,
                title="samples, bandwidth",
                title_fontsize=8,
                loc="upper right",
                bbox_to_anchor=(1, 0.85),
            )
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        axes.set_xticks([1, 5, 10, 15, 20])
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _landscapes(path: Path, runs: Sequence[Run]) -> None:
    """One row per strategy, one column per seed; all in the same colours."""
    seeds = sorted({run["seed"] for run in runs})
    found = {
        (run["case"], run["seed"]): landscape_of(run) for run in runs if run["case"] in (DARTS, REFERENCE)
    }
    low = min(float(one.losses.min()) for one in found.values())
    high = statistics.median(float(one.losses.max()) for one in found.values())
    figure = Figure(figsize=(3.1 * len(seeds) + 0.6, 6), dpi=110, layout="constrained")
    drawn, all_axes = None, list[Axes]()
    for row, (case, title) in enumerate({DARTS: "DARTS", REFERENCE: "MS-DARTS"}.items()):
        for column, seed in enumerate(seeds):
            axes = figure.add_subplot(2, len(seeds), row * len(seeds) + column + 1)
            drawn = heights(axes, found[case, seed], low, high)
            axes.set_title(f"{title}, seed {seed}: rise {found[case, seed].rise:.2f}", fontsize=10)
            all_axes.append(axes)
    assert drawn is not None
    figure.colorbar(drawn, ax=all_axes, label="validation loss", shrink=0.7, format="%.2f")
    figure.savefig(path)


def landscape_of(run: Run) -> Landscape:
    offsets, losses = (torch.tensor(run["landscape"][name]) for name in ("offsets", "losses"))
    return Landscape(offsets, losses)
