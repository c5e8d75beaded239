"""Pictures of a run: cells, learning curves, and the mix over the epochs.

Every function draws into a file, which is either a path (its suffix decides the format) or an open file. ``svg``
returns a drawing as text that takes its colours from the page around it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from models.training.events import Row
from stages.contracts import Layout
from stages.evaluation import Metric

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False  # because a class may be called $a$

File = Path | BinaryIO
Arguments = ParamSpec("Arguments")

COLOURS = {  # dark enough for white letters on them: a contrast of at least 4.5
    "sep_conv_3x3": "#2b6cb0",
    "sep_conv_5x5": "#1a4480",
    "dil_conv_3x3": "#2f855a",
    "dil_conv_5x5": "#1c5c3c",
    "max_pool_3x3": "#9a6212",
    "skip_connect": "#64748b",
    "noise": "#c53030",
    "nor_conv_3x3": "#2b6cb0",
    "nor_conv_1x1": "#2f855a",
    "avg_pool_3x3": "#c05621",
    "tanh": "#2b6cb0",
    "sigmoid": "#2f855a",
    "relu": "#c05621",
    "identity": "#8a6d3b",
    "product": "#8e6bbf",
    "sum": "#9a6212",
    "none": "#6b7280",
}
_LINE_COLOURS = {"training": "#2b6cb0", "validation": "#c05621"}
# Of operations without a colour above, such as gates on qubits; readable on white and on black.
_OTHER_COLOURS = ("#3b82c4", "#d9730d", "#2f9e5f", "#d1495b", "#8e6bbf", "#8a6d3b")
_LINES = ("-", "--", ":", "-.")
_NAMES = {"skip_connect": "skip"}
INK, PAPER = "#1a202c", "white"
INPUT, NODE, OUTPUT, LINE = "#edf2f7", "#bee3f8", "#fefcbf", "#cbd5e0"
# Colours that a dark page replaces -> the page's CSS variables for them.
_THEME = {
    INK: "--ink",
    INPUT: "--input",
    NODE: "--node",
    OUTPUT: "--output",
    LINE: "--line",
    COLOURS["sep_conv_5x5"]: "--sep5",
    COLOURS["dil_conv_5x5"]: "--dil5",
}


def svg(
    draw: Callable[Concatenate[File, Arguments], None], *rest: Arguments.args, **named: Arguments.kwargs
) -> str:
    """What ``draw(file, ...)`` draws, as an SVG element for a page. Equal input gives equal text.

    The colours of ink, lines and boxes are CSS variables of the page. The background is transparent.
    """
    settings: dict[Any, Any] = {
        "savefig.format": "svg",
        "savefig.transparent": True,
        "svg.fonttype": "none",  # keeps text as text
        "svg.hashsalt": "msdarts",  # otherwise the ids inside differ between runs
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
        ),
    }
    file = io.BytesIO()
    with matplotlib.rc_context(settings):
        draw(file, *rest, **named)
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' id="[^"]*_\d+"', "", text)  # ids, which would clash with those of the next drawing
    head = text[: text.index(">")]
    text = (
        re.sub(r' (width|height)="[^"]*"', "", head) + text[len(head) :]
    )  # so that the drawing fills its place
    for colour, name in _THEME.items():
        text = text.replace(colour, f"var({name})")
    return text


def cell(file: File, genotype: Genotype, group: str, layout: Layout) -> None:
    """Draws a cell with one column per node, in the order of computation, and one row per edge.

    An arrow starts at the node whose output the edge takes and ends at the node that adds the result. Because every
    edge has its own row, no arrow hides another.
    """
    if group in layout.drawings:
        layout.drawings[group](file, narrow=False)
        return
    edges = genotype.groups[group]
    nodes, inputs, output = layout.nodes, layout.inputs, layout.outputs
    figure = Figure(figsize=(1.35 * len(nodes) + 0.4, 0.52 * len(edges) + 2.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bottom = len(edges) + 1
    for node, title in enumerate(nodes):
        _box(axes, node, -0.3, title, INPUT if node < inputs else NODE)
        used = [row for row, edge in enumerate(edges) if edge[0] == node]
        end = bottom if node in output else max(used, default=-1) + 1.0
        axes.plot([node, node], [0, end], color=LINE, linewidth=1.5, zorder=1)
    for row, (src, dst, op) in enumerate(edges):
        y, colour = row + 0.75, COLOURS.get(op, INK)
        axes.plot(src, y, marker="o", color=colour, markersize=6, zorder=3)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "mutation_scale": 16}
        axes.annotate(
            "", xy=(dst, y), xytext=(src, y), zorder=2, arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0}
        )
        label = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": PAPER}
        axes.text(
            (src + dst) / 2,
            y,
            name_of(op),
            color=PAPER,
            fontsize=8.5,
            ha="center",
            va="center",
            bbox=label,
            zorder=5,
        )
    text = "output of the cell" if len(output) == 1 else "output of the cell: nodes 0 to 3, concatenated"
    _box(axes, (output[0] + output[-1]) / 2, bottom, text, OUTPUT, width=max(len(output) - 0.32, 1.2))
    axes.set_title(layout.title(group), color=INK, fontsize=11)
    axes.set_xlim(-0.6, len(nodes) - 0.4)
    axes.set_ylim(bottom + 0.5, -0.8)
    axes.axis("off")
    figure.savefig(file)


def name_of(op: str) -> str:
    """What a picture calls an operation."""
    return _NAMES.get(op, op.replace("_", " "))


def _box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 0.68) -> None:
    place = (x - width / 2, y - 0.22)
    axes.add_patch(
        FancyBboxPatch(
            place, width, 0.44, boxstyle="round,pad=0.06", facecolor=colour, edgecolor=INK, zorder=4
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=INK, zorder=6)


@dataclass(frozen=True)
class Panel:
    """A small chart of columns of the history over the epochs."""

    title: str
    lines: Mapping[str, str]  # label -> column
    percent: bool = False  # the values are shares, from 0 to 1
    from_zero: bool = False


def learning_panels(metric: Metric) -> list[Panel]:
    """The panels of loss and metric, each with training and validation."""

    def lines(column: str) -> dict[str, str]:
        return {"training": f"train_{column}", "validation": f"valid_{column}"}

    percent = metric.outcomes == "right or wrong"
    return [Panel("loss", lines("loss"), from_zero=True), Panel(metric.name, lines(metric.name), percent)]


def instability_panels(history: Sequence[Row]) -> list[Panel]:
    """The panels that show whether a search collapses, except those in which nothing ever differs from 0."""
    columns = history[0]
    groups = [name.removeprefix("entropy_") for name in columns if name.startswith("entropy_")]
    panels = [
        Panel("row entropy of the mix (nats)", {group: f"entropy_{group}" for group in groups}),
        Panel("skip connections in the genotype", {group: f"skip_connects_{group}" for group in groups}),
        Panel("edges changed since the previous epoch", {"edges": "genotype_changes"}),
        Panel("movement of the mix by smoothing", {"movement": "movement"}),
        Panel("dominant Hessian eigenvalue", {"eigenvalue": "hessian_eigenvalue"}),
        Panel("tabulated accuracy (%)", {"accuracy": "tabulated_accuracy"}),
    ]
    known = [panel for panel in panels if all(column in columns for column in panel.lines.values())]
    return [
        panel for panel in known if any(row[name] != 0 for row in history for name in panel.lines.values())
    ]


def latency_panels(history: Sequence[Row]) -> list[Panel]:
    """The panels of a search that heeds latency: predicted latency, its multiplier, and samples over the budget."""
    panels = [
        Panel("predicted latency of the genotype (ms)", {"latency": "latency_ms"}, from_zero=True),
        Panel("multiplier of the latency", {"multiplier": "latency_multiplier"}),
        Panel("sampled networks over the budget", {"share": "latency_over_budget"}, percent=True),
    ]
    return [panel for panel in panels if all(column in history[0] for column in panel.lines.values())]


def instability(file: File, history: Sequence[Row]) -> None:
    """Draws the panels of instability side by side."""
    panels = instability_panels(history)
    figure = Figure(figsize=(3.1 * len(panels), 3.0), dpi=120, layout="constrained")
    for position, panel in enumerate(panels):
        _draw(figure.add_subplot(1, len(panels), position + 1), history, panel)
    figure.savefig(file)


def curves(file: File, history: Sequence[Row], title: str, metric: Metric) -> None:
    """Draws loss and metric over the epochs, each for training and validation."""
    panels = learning_panels(metric)
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    for position, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        _draw(axes, history, replace(panel, title=f"{title}: {panel.title}"))
    figure.savefig(file)


def small(file: File, history: Sequence[Row], panel: Panel, chosen: int | None = None) -> None:
    """Draws one panel as wide as a phone. ``chosen`` is the epoch of the result, which a dotted line marks."""
    figure = Figure(figsize=(3.5, 2.3), layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, history, panel)
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=0.8, linestyle=":")
    figure.savefig(file)


def _draw(axes: Axes, history: Sequence[Row], panel: Panel) -> None:
    for label, column in panel.lines.items():
        points = [(row["epoch"] or 0, row[column]) for row in history]
        drawn = [(epoch, value) for epoch, value in points if value is not None]
        marker = "." if len(drawn) < 5 else None
        axes.plot([e for e, _ in drawn], [v for _, v in drawn], color=_LINE_COLOURS.get(label), label=label, marker=marker)  # fmt: skip
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.ticklabel_format(axis="y", useOffset=False)  # 2.0794 instead of 0.0004 under a "+2.079"
    if panel.from_zero:
        axes.set_ylim(0, 1.05 * axes.dataLim.y1 or 1)
    axes.grid(alpha=0.3)
    if len(panel.lines) > 1:
        axes.legend(frameon=False, fontsize=8)


def styles_of(ops: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The line of each operation. Those without a colour of their own share six colours, in four kinds of lines."""
    styles: dict[str, dict[str, Any]] = {}
    for op in ops:
        turn = sum(other not in COLOURS for other in styles)
        kind = _LINES[turn // len(_OTHER_COLOURS) % len(_LINES)]
        styles[op] = (
            {"color": COLOURS[op], "linestyle": {"none": ":", "skip_connect": "--"}.get(op, "-")}
            if op in COLOURS
            else {"color": _OTHER_COLOURS[turn % len(_OTHER_COLOURS)], "linestyle": kind}
        )
    return styles


def _weight(mix_EO: Sequence[Sequence[float]], edge: int, column: int) -> float:
    """A weight of a mix; not a number where the mix had no such edge or operation yet."""
    known = edge < len(mix_EO) and column < len(mix_EO[edge])
    return mix_EO[edge][column] if known else math.nan


def mix(
    file: File,
    space: SearchSpace,
    genotype: Genotype,
    group: str,
    mix_TEO: Sequence[Sequence[Sequence[float]]],
    chosen: int,
    layout: Layout,
) -> None:
    """Draws the weights of a cell's operations over the T epochs, with one panel per edge.

    Where the genotype, which is that of epoch ``chosen``, has an edge, the panel's title names the chosen
    operation. Where the mix has grown, lines begin in the epoch in which their edge or operation came.
    """
    edges = space.groups[group]
    kept = {(src, dst): op for src, dst, op in genotype.groups[group]}
    rows = (len(edges) + 1) // 2
    epochs = range(1, len(mix_TEO) + 1)
    top = max(weight for mix_EO in mix_TEO for row in mix_EO for weight in row)
    figure = Figure(figsize=(3.8, 1.25 * rows + 0.7), layout="constrained")
    styles = styles_of(list(dict.fromkeys(op for edge in edges for op in edge.ops)))
    for number, edge in enumerate(edges):
        axes = figure.add_subplot(rows, 2, number + 1)
        for column, op in enumerate(edge.ops):
            axes.plot(
                epochs,
                [_weight(mix_EO, number, column) for mix_EO in mix_TEO],
                linewidth=2.2 if kept.get((edge.src, edge.dst)) == op else 0.9,
                marker="." if len(epochs) < 5 else None,
                **styles[op],
            )
        op = kept.get((edge.src, edge.dst))
        title = layout.edge(group, number, edge.src, edge.dst) + (f": {name_of(op)}" if op else "")
        axes.set_title(title, fontsize=7, loc="left", pad=2, weight="bold" if op else "normal")
        axes.axvline(chosen, color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylim(0, 1.05 * top)
        axes.tick_params(labelsize=6, labelleft=number % 2 == 0, labelbottom=number >= len(edges) - 2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.supxlabel("epoch", fontsize=7, color=INK)
    figure.legend(
        [Line2D([], [], **style) for style in styles.values()],
        map(name_of, styles),
        loc="outside upper center",
        ncols=4,
        fontsize=6.5,
        frameon=False,
        handlelength=1.4,
        columnspacing=1,
    )
    figure.savefig(file)
