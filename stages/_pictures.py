"""Pictures that a person can read without having been there: cells, learning curves, confusion matrices."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from models.events import Row
from models.genotype import Genotype
from models.spaces import NASBENCH201_NODES, NODES

matplotlib.use("Agg")

_COLOURS = {
    "sep_conv_3x3": "#2b6cb0",
    "sep_conv_5x5": "#1a4480",
    "dil_conv_3x3": "#2f855a",
    "dil_conv_5x5": "#1c5c3c",
    "max_pool_3x3": "#b7791f",
    "skip_connect": "#718096",
    "noise": "#c53030",
    "nor_conv_3x3": "#2b6cb0",
    "nor_conv_1x1": "#2f855a",
    "avg_pool_3x3": "#c05621",
    "none": "#a0aec0",
}
_NAMES = {"skip_connect": "skip"}
_INK, _PAPER = "#1a202c", "white"


def cell(path: Path, genotype: Genotype, group: str) -> None:
    """One cell as columns, a node each, in the order they are computed; every edge has a line to itself.

    An arrow leaves the node whose output it takes and ends at the node that sums it; no arrow can hide another.
    """
    edges = genotype.groups[group]
    nodes, inputs, output = _layout(genotype)
    figure = Figure(figsize=(1.35 * len(nodes) + 0.4, 0.52 * len(edges) + 2.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bottom = len(edges) + 1
    for node, title in enumerate(nodes):
        _box(axes, node, -0.3, title, "#edf2f7" if node < inputs else "#bee3f8")
        used = [row for row, edge in enumerate(edges) if edge[0] == node]
        end = bottom if node in output else max(used, default=-1) + 1.0
        axes.plot([node, node], [0, end], color="#cbd5e0", linewidth=1.5, zorder=1)
    for row, (src, dst, op) in enumerate(edges):
        y, colour = row + 0.75, _COLOURS.get(op, _INK)
        axes.plot(src, y, marker="o", color=colour, markersize=6, zorder=3)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "mutation_scale": 16}
        axes.annotate(
            "", xy=(dst, y), xytext=(src, y), zorder=2, arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0}
        )
        label = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": _PAPER}
        name = _NAMES.get(op, op.replace("_", " "))
        axes.text(
            (src + dst) / 2,
            y,
            name,
            color=_PAPER,
            fontsize=8.5,
            ha="center",
            va="center",
            bbox=label,
            zorder=5,
        )
    text = "output of the cell" if len(output) == 1 else "output of the cell: nodes 0 to 3, concatenated"
    _box(axes, (output[0] + output[-1]) / 2, bottom, text, "#fefcbf", width=max(len(output) - 0.32, 1.2))
    axes.set_title({"reduce": "reduce cell: inputs to half their side"}.get(group, f"{group} cell".replace("cell cell", "cell")), color=_INK, fontsize=11)  # fmt: skip
    axes.set_xlim(-0.6, len(nodes) - 0.4)
    axes.set_ylim(bottom + 0.5, -0.8)
    axes.axis("off")
    figure.savefig(path)


def _layout(genotype: Genotype) -> tuple[list[str], int, list[int]]:
    """Titles of the nodes, how many of them are inputs, and which make the output."""
    if genotype.space == "nasbench201":
        return (
            ["input", *(f"node {node}" for node in range(1, NASBENCH201_NODES))],
            1,
            [NASBENCH201_NODES - 1],
        )
    titles = ["cell k\u22122", "cell k\u22121", *(f"node {node}" for node in range(NODES))]
    return titles, 2, list(range(2, 2 + NODES))


def _box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 0.68) -> None:
    place = (x - width / 2, y - 0.22)
    axes.add_patch(
        FancyBboxPatch(
            place, width, 0.44, boxstyle="round,pad=0.06", facecolor=colour, edgecolor=_INK, zorder=4
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=_INK, zorder=6)


def instability(path: Path, history: Sequence[Row]) -> None:
    """What tells a search that falls apart, by epoch: entropy, skip connections, changes, movement of the mix."""
    groups = [name.removeprefix("entropy_") for name in history[0] if name.startswith("entropy_")]
    panels = {
        "row entropy of the mix (nats)": [f"entropy_{group}" for group in groups],
        "skip connections in the genotype": [f"skip_connects_{group}" for group in groups],
        "edges changed since the epoch before": ["genotype_changes"],
        "movement of the mix by smoothing": ["movement"],
    }
    if "hessian_eigenvalue" in history[0]:
        panels["dominant Hessian eigenvalue"] = ["hessian_eigenvalue"]
    if "tabulated_accuracy" in history[0]:
        panels["tabulated accuracy (%)"] = ["tabulated_accuracy"]
    figure = Figure(figsize=(3.1 * len(panels), 3.0), dpi=120, layout="constrained")
    epochs = [row["epoch"] or 0 for row in history]
    for position, (title, columns) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), position + 1)
        for column in columns:
            points = [(epoch, row[column]) for epoch, row in zip(epochs, history, strict=True)]
            drawn = [(epoch, value) for epoch, value in points if value is not None]
            label = column.removeprefix("entropy_").removeprefix("skip_connects_")
            axes.plot(
                [e for e, _ in drawn],
                [v for _, v in drawn],
                label=label,
                marker="." if len(drawn) < 5 else None,
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(alpha=0.3)
        if len(columns) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def curves(path: Path, history: Sequence[Row], title: str) -> None:
    """Loss and accuracy by epoch, training and validation."""
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    epochs = [row["epoch"] or 0 for row in history]
    for position, quantity in enumerate(("loss", "accuracy")):
        axes = figure.add_subplot(1, 2, position + 1)
        for split, colour in (("train", "#2b6cb0"), ("valid", "#c05621")):
            label = {"train": "training", "valid": "validation"}[split]
            values = [row[f"{split}_{quantity}"] or 0.0 for row in history]
            axes.plot(epochs, values, color=colour, label=label, marker="o" if len(epochs) < 3 else None)
        axes.set_xlabel("epoch")
        axes.set_title(f"{title}: {quantity}{' (nats)' if quantity == 'loss' else ''}", fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if quantity == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path)


def confusion(path: Path, counts: Tensor, classes: Sequence[str]) -> None:
    """Counts (actual, predicted): shares of the actual class as shade, counts as numbers where they fit."""
    size = min(max(0.42 * len(classes) + 2, 4.5), 16)
    figure = Figure(figsize=(size + 0.8, size), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the actual class", format=PercentFormatter(1.0), shrink=0.8)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.set_yticks(ticks, classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    if len(classes) <= 25:
        for actual in ticks:
            for predicted in ticks:
                if count := int(counts[actual, predicted]):
                    dark = shares[actual, predicted] > 0.5
                    axes.text(predicted, actual, str(count), ha="center", va="center", fontsize=8, color=_PAPER if dark else _INK)  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script the font has not
        figure.savefig(path)
