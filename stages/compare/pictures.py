"""The picture of a comparison: test score against parameters, multiply-adds and latency."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from stages.comparison import ArmResult, ComparisonRecord, form_of
from stages.evaluation import Metric
from stages.pictures import File

_FOUND, _RANDOM, _BASELINES = "#c05621", "#2b6cb0", ("#2f855a", "#6b46c1", "#b7791f", "#97266d")


def draw(file: File, record: ComparisonRecord, metric: Metric) -> None:
    """One panel per cost that is known. A bar is the standard deviation over the seeds."""
    form = form_of(record, metric)
    panels = {
        "parameters": [arm.params for arm in record.arms],
        f"multiply-adds per {metric.case}": [arm.macs for arm in record.arms],
        f"ms per {metric.case}, {record.measured_with}": [arm.latency_ms for arm in record.arms],
    }
    shown = {title: costs for title, costs in panels.items() if None not in costs}
    figure = Figure(figsize=(4.2 * len(shown), 3.8), dpi=120, layout="constrained")
    for number, (title, costs) in enumerate(shown.items()):
        axes = figure.add_subplot(1, len(shown), number + 1)
        _panel(axes, record.arms, [cost for cost in costs if cost is not None])
        axes.set_xlabel(title)
        if number == 0:
            axes.set_ylabel(f"test {form.words}")
            axes.legend(frameon=False, fontsize=8)
        if form.outcomes == "right or wrong":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    figure.savefig(file)


def _panel(axes: Axes, arms: Sequence[ArmResult], costs: Sequence[float]) -> None:
    by_hand = [arm.name for arm in arms if arm.kind == "baseline"]
    named: set[str] = set()
    # The found cell is drawn last, above the others.
    for arm, cost in sorted(zip(arms, costs, strict=True), key=lambda pair: pair[0].kind == "found"):
        label = {"found": "found cell", "random": "random cells"}.get(arm.kind, arm.name)
        colour = {"found": _FOUND, "random": _RANDOM}.get(arm.kind)
        axes.errorbar(
            cost,
            arm.mean,
            yerr=arm.deviation,
            fmt={"found": "*", "random": "o"}.get(arm.kind, "s"),
            color=colour or _BASELINES[by_hand.index(arm.name) % len(_BASELINES)],
            markersize=13 if arm.kind == "found" else 6,
            capsize=2,
            elinewidth=1,
            label=label if label not in named else None,
        )
        named.add(label)
    middle = sum(costs) / len(costs)
    if max(costs) - min(costs) < 0.2 * middle:  # equal costs should look equal
        axes.set_xlim(0.85 * middle, 1.15 * middle)
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: _short(cost)))
    axes.grid(alpha=0.3)


def _short(cost: float) -> str:
    """A number in few letters: 0.17, 12.5k, 1.2M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if cost >= size:
            return f"{cost / size:.4g}{unit}"
    return f"{cost:.3g}"
