"""The results of `python -m benchmarks.stability` as a table and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._collapse import COLLAPSE
from benchmarks._trial import Run
from models.images.families import family_of
from models.images.genotype import from_json

matplotlib.use("Agg")

RATIO_WANTED, RATIO_SEEDS = 0.6, (0, 1, 2)


@dataclass(frozen=True)
class Spread:
    """n values, their mean and their standard deviation (of a sample; None for one value)."""

    n: int
    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.deviation is None else f" ± {self.deviation:.3f}")


def spread(values: Sequence[float]) -> Spread:
    return Spread(
        len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    )


def of_case(runs: Sequence[Run], case: str, column: str) -> str:
    """Mean and standard deviation of a column over the runs of a case; a dash where it was not measured."""
    values = [run[column] for run in runs if run["case"] == case and run.get(column) is not None]
    return str(spread(values)) if values else "-"


def ratio(runs: Sequence[Run]) -> float | None:
    """Mean gap of ms-darts divided by that of darts, over seeds 0 to 2; None if one of these runs is missing."""
    means = {}
    for case in ("ms-darts", "darts"):
        gaps = [
            run["discretization_gap"] for run in runs if run["case"] == case and run["seed"] in RATIO_SEEDS
        ]
        if len(gaps) < len(RATIO_SEEDS):
            return None
        means[case] = statistics.fmean(gaps)
    return means["ms-darts"] / means["darts"] if means["darts"] else None


def report(about: Mapping[str, Any], runs: Sequence[Run], title: str, judged: str) -> str:
    """The results as Markdown."""
    cases = list(dict.fromkeys(run["case"] for run in runs))
    plain = COLLAPSE[runs[0]["genotype"]["space"]].title
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += [
        "Mean ± standard deviation over the seeds. The gap is the validation accuracy of the supernet minus that of"
        " its discretized mix, each after recalibrating batch norm.",
        "",
        f"| strategy | n | seeds | gap | supernet | discretized | top eigenvalue | {judged} | {plain} | collapsed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        mine = [run for run in runs if run["case"] == case]
        seeds = ", ".join(str(run["seed"]) for run in mine)
        columns = (
            "discretization_gap",
            "supernet_accuracy",
            "discretized_accuracy",
            "hessian_eigenvalue",
            "accuracy",
            "plain_edges",
        )
        values = " | ".join(of_case(runs, case, column) for column in columns)
        lines.append(
            f"| {case} | {len(mine)} | {seeds} | {values} | {sum(run['collapsed'] for run in mine)} of {len(mine)} |"
        )
    if (found := ratio(runs)) is not None:
        verdict = "reached" if found <= RATIO_WANTED else "not reached"
        lines += ["", f"Mean gap of ms-darts divided by that of darts, seeds 0 to 2: {found:.2f}."]
        lines += [f"The goal, at most {RATIO_WANTED}, is {verdict}."]
    lines += _smoothing(runs, cases)
    lines += ["", "## Every run", ""]
    lines += [
        f"| strategy | seed | gap | top eigenvalue | {judged} | {plain} | genotype | search s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=lambda run: (cases.index(run["case"]), run["seed"])):
        cells = [run["case"], str(run["seed"])]
        cells += [_number(run.get(name)) for name in ("discretization_gap", "hessian_eigenvalue", "accuracy")]
        cells += [str(run["plain_edges"]), genotype_text(run["genotype"]), f"{run['search_seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if notices := sorted({notice for run in runs for notice in run["notices"]}):
        lines += ["", "Notices of the searches:", "", *(f"- {notice}" for notice in notices)]
    return "\n".join(lines) + "\n"


def _smoothing(runs: Sequence[Run], cases: Sequence[str]) -> list[str]:
    """A table of what smoothing did in the last epoch. Cases without smoothing are left out."""
    names = ("radius", "movement", "bandwidth", "effective_sample_size", "kernel_spread")
    lines = []
    for case in cases:
        mine = [run["curves"] for run in runs if run["case"] == case]
        if any((curve["movement"][-1] or 0) > 0 for curve in mine):
            last = [[curve[name][-1] for curve in mine if name in curve] for name in names]
            lines.append(
                f"| {case} | {' | '.join(str(spread(values)) if values else '-' for values in last)} |"
            )
    if not lines:
        return []
    heading = (
        "| strategy | radius | movement of the mix | bandwidth | effective sample size | kernel spread |"
    )
    return ["", "## Smoothing in the last epoch", "", heading, "|---|---|---|---|---|---|", *lines]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def genotype_text(content: Mapping[str, Any]) -> str:
    """A genotype as the text of a table cell."""
    genotype = from_json(content)
    if (key := family_of(genotype).table_key) is not None:
        # A vertical bar would end the table cell.
        return key(genotype).replace("|+|", " + ").strip("|").replace("|", ", ")
    return "; ".join(
        f"{group}: {', '.join(f'{op}~{src}' for src, _, op in edges)}"
        for group, edges in genotype.groups.items()
    )


def picture(path: Path, runs: Sequence[Run]) -> None:
    """The gap of every run, and the curves of entropy, eigenvalue and accuracy: thin lines seeds, thick lines means."""
    cases = list(dict.fromkeys(run["case"] for run in runs))
    colours = {case: matplotlib.colormaps["tab10"](position % 10) for position, case in enumerate(cases)}
    names = list(dict.fromkeys(name for run in runs for name in run["curves"]))
    panels = {
        "row entropy of the mix (nats)": [name for name in names if name.startswith("entropy_")][:1],
        "dominant Hessian eigenvalue": [name for name in names if name == "hessian_eigenvalue"],
        "validation accuracy of the supernet": ["valid_accuracy"],
        "tabulated accuracy (%)": [name for name in names if name == "tabulated_accuracy"],
    }
    drawn = {title: columns[0] for title, columns in panels.items() if columns}
    figure = Figure(figsize=(4.2 * (1 + len(drawn)), 3.8), dpi=110, layout="constrained")
    _gaps(figure.add_subplot(1, 1 + len(drawn), 1), runs, colours)
    for position, (title, column) in enumerate(drawn.items(), start=2):
        axes = figure.add_subplot(1, 1 + len(drawn), position)
        for case in cases:
            of_seeds = [run["curves"][column] for run in runs if run["case"] == case]
            for values in of_seeds:
                axes.plot(range(1, len(values) + 1), values, color=colours[case], linewidth=0.6, alpha=0.35)
            means = [statistics.fmean(values) for values in zip(*of_seeds, strict=True)]
            axes.plot(range(1, len(means) + 1), means, color=colours[case], linewidth=2, label=case)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if position == 2:
            axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _gaps(axes: Axes, runs: Sequence[Run], colours: Mapping[str, Any]) -> None:
    for position, (case, colour) in enumerate(colours.items()):
        gaps = [run["discretization_gap"] for run in runs if run["case"] == case]
        axes.bar(position, statistics.fmean(gaps), color=colour, alpha=0.35, width=0.7)
        axes.scatter([position] * len(gaps), gaps, color=[colour], zorder=3, s=22)
    axes.set_xticks(range(len(colours)), list(colours), rotation=20, ha="right", fontsize=8)
    axes.set_title("discretization gap: mean, and each seed", fontsize=10)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.grid(axis="y", alpha=0.3)
