"""The results of `python -m benchmarks.evidence` as tables and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks._stability_report import genotype_text, of_case, spread
from benchmarks._trial import Run
from models.training.seeds import generator

matplotlib.use("Agg")

RANDOM = "random"
DEFAULT = "ms-darts, discretization, no edge may be none"
DRAWS = 20_000
PICKS = (1, 5, 10, 20)  # numbers of random cells of which the best is looked for, besides that at equal cost


def cells_report(about: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """The results in the NAS-Bench-201 cell as Markdown."""
    searches, randoms = _parts(runs)
    cases = list(dict.fromkeys(run["case"] for run in searches))
    lines = ["# What searches find in the NAS-Bench-201 cell", ""]
    lines += [*(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += [
        "Mean ± standard deviation over the seeds. The accuracy is that of the table, of the cell at the end; the best"
        " epoch is the one whose cell has the highest accuracy, which a search cannot know. Plain edges carry no"
        " parameters. Minutes are of processor time.",
        "",
        "| search, penalty | n | accuracy (%) | lowest | best epoch (%) | gap | mix | plain edges | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        mine = [run for run in searches if run["case"] == case]
        found = [100 * run["accuracy"] for run in mine]
        best = [max(run["curves"]["tabulated_accuracy"]) for run in mine]
        minutes = statistics.fmean(run["cpu_seconds"] for run in mine) / 60
        cells = [case, str(len(mine)), _short(found), f"{min(found):.2f}", _short(best)]
        cells += [of_case(searches, case, name) for name in ("discretization_gap", "supernet_accuracy")]
        cells += [f"{statistics.fmean(run['plain_edges'] for run in mine):.1f}", f"{minutes:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if randoms:
        lines += _random_lines(searches, randoms)
    lines += [
        "",
        "## Every run",
        "",
        "| case | seed | accuracy (%) | gap | genotype |",
        "|---|---|---|---|---|",
    ]
    for run in searches:
        cells = [run["case"], str(run["seed"]), f"{100 * run['accuracy']:.2f}"]
        cells += [f"{run['discretization_gap']:.3f}", genotype_text(run["genotype"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _parts(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The searches, and the trainings of random cells."""
    return [run for run in runs if run["case"] != RANDOM], [run for run in runs if run["case"] == RANDOM]


def _short(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{found.mean:.2f}" + ("" if found.deviation is None else f" ± {found.deviation:.2f}")


def _random_lines(searches: Sequence[Run], randoms: Sequence[Run]) -> list[str]:
    """Random cells: their mean, and the best of several by validation accuracy."""
    seconds = statistics.fmean(run["cpu_seconds"] for run in randoms)
    equal = equal_cost(searches, randoms)
    lines = [
        "",
        "## Random cells",
        "",
        f"{len(randoms)} random cells, {seconds:.0f} s of processor time each. The best of k has the highest validation"
        f" accuracy of k that are drawn from them without replacement; mean ± standard deviation over {DRAWS} draws.",
        "",
        "| k | accuracy (%) | |",
        "|---|---|---|",
    ]
    counts: set[int] = {*PICKS, *([] if equal is None else [equal])}
    for count in sorted(counts):
        if count <= len(randoms):
            remark = "the cost of one default search" if count == equal else ""
            lines.append(f"| {count} | {_short(best_of(randoms, count))} | {remark} |")
    return lines


def equal_cost(searches: Sequence[Run], randoms: Sequence[Run]) -> int | None:
    """How many random cells are trained in the time of one default search; None when none has finished."""
    seconds = [run["cpu_seconds"] for run in searches if run["case"] == DEFAULT]
    if not seconds:
        return None
    return max(1, round(statistics.fmean(seconds) / statistics.fmean(run["cpu_seconds"] for run in randoms)))


def best_of(randoms: Sequence[Run], count: int) -> list[float]:
    """For each of many draws: the accuracy in % of that of ``count`` cells with the best validation accuracy."""
    valid = torch.tensor([run["valid_accuracy"] for run in randoms])
    accuracy = torch.tensor([100 * run["accuracy"] for run in randoms])
    order = torch.rand(DRAWS, len(randoms), generator=generator(0, "best of random")).argsort(dim=1)[
        :, :count
    ]
    chosen = order.gather(1, valid[order].argmax(dim=1, keepdim=True))
    return accuracy[chosen.flatten()].tolist()


def cells_picture(path: Path, runs: Sequence[Run]) -> None:
    """Tabulated accuracy of the current cell over the epochs, a panel per strategy: thin lines seeds, thick lines means."""
    searches, _ = _parts(runs)
    cases = list(dict.fromkeys(run["case"] for run in searches))
    strategies = list(dict.fromkeys(case.partition(", ")[0] for case in cases))
    figure = Figure(
        figsize=(3.6 * min(3, len(strategies)), 3.2 * -(-len(strategies) // 3)), dpi=110, layout="constrained"
    )
    for position, strategy in enumerate(strategies, start=1):
        axes = figure.add_subplot(-(-len(strategies) // 3), min(3, len(strategies)), position)
        mine = [case for case in cases if case.partition(", ")[0] == strategy]
        for at, case in enumerate(mine):
            colour = matplotlib.colormaps["tab10"](at)
            curves = [run["curves"]["tabulated_accuracy"] for run in searches if run["case"] == case]
            for values in curves:
                axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.5, alpha=0.35)
            means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
            axes.plot(
                range(1, len(means) + 1), means, color=colour, linewidth=2, label=case.partition(", ")[2]
            )
        axes.set_ylim(84, 95)  # a cell through which no path leads has 10%
        axes.set_title(strategy, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylabel("tabulated accuracy (%)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def spaces_report(about: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """The results in S1 to S4 as Markdown."""
    cases = list(dict.fromkeys(run["case"] for run in runs))
    lines = [
        "# DARTS and MS-DARTS in the spaces S1 to S4",
        "",
        *(f"- {name}: {value}" for name, value in about.items()),
    ]
    lines += [
        "",
        "Mean ± standard deviation over the seeds. The gap is the validation accuracy of the supernet (mix) minus that of its"
        " discretized mix. A cell has 8 edges; counted are those of the normal and of the reduction cell together.",
        "",
        "| space: search | n | gap | mix | discretized | skip connections of 16 | noise of 16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        mine = [run for run in runs if run["case"] == case]
        values = [
            of_case(runs, case, name)
            for name in ("discretization_gap", "supernet_accuracy", "discretized_accuracy")
        ]
        values += [_short([count(run, op) for run in mine]) for op in ("skip_connect", "noise")]
        lines.append(f"| {case} | {len(mine)} | {' | '.join(values)} |")
    lines += ["", "## Every run", "", "| case | seed | gap | genotype |", "|---|---|---|---|"]
    for run in runs:
        gap = f"{run['discretization_gap']:.3f}"
        lines.append(f"| {run['case']} | {run['seed']} | {gap} | {genotype_text(run['genotype'])} |")
    return "\n".join(lines) + "\n"


def count(run: Run, op: str) -> int:
    """How many edges of all cells of the found genotype carry the operation."""
    genotype = run["genotype"]
    return sum(edge[0] == op for group in ("normal", "reduce") for edge in genotype[group])
