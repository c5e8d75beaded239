"""Pictures that a person can read without having been there: cells, learning curves, confusion matrices."""

from __future__ import annotations

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
from models.spaces import NODES

matplotlib.use("Agg")

_COLOURS = {
    "sep_conv_3x3": "#2b6cb0",
    "sep_conv_5x5": "#1a4480",
    "dil_conv_3x3": "#2f855a",
    "dil_conv_5x5": "#1c5c3c",
    "max_pool_3x3": "#b7791f",
    "avg_pool_3x3": "#c05621",
    "skip_connect": "#718096",
    "noise": "#c53030",
}
_NAMES = {"skip_connect": "skip"}
_INK, _PAPER = "#1a202c", "white"


def cell(path: Path, genotype: Genotype, group: str) -> None:
    """One cell as columns, a node each, in the order they are computed; every edge has a line to itself.

    An arrow leaves the node whose output it takes and ends at the node that sums it; no arrow can hide another.
    """
    edges = genotype.groups[group]
    figure = Figure(figsize=(8.5, 0.52 * len(edges) + 2.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bottom = len(edges) + 1
    for node in range(2 + NODES):
        title = {0: "cell k\u22122", 1: "cell k\u22121"}.get(node, f"node {node - 2}")
        _box(axes, node, -0.3, title, "#edf2f7" if node < 2 else "#bee3f8")
        used = [row for row, edge in enumerate(edges) if edge[0] == node]
        end = bottom if node >= 2 else max(used, default=-1) + 1.0
        axes.plot([node, node], [0, end], color="#cbd5e0", linewidth=1.5, zorder=1)
    for row, (src, dst, op) in enumerate(edges):
        y, colour = row + 0.75, _COLOURS.get(op, _INK)
        axes.plot(src, y, marker="o", color=colour, markersize=6, zorder=3)
        axes.annotate(
            "", xy=(dst, y), xytext=(src, y), zorder=2,
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2, "mutation_scale": 16, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axes.text(
            (src + dst) / 2, y, _NAMES.get(op, op.replace("_", " ")), color=_PAPER, fontsize=8.5, ha="center", va="center",
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": _PAPER}, zorder=5,
        )  # fmt: skip
    middle = (2 + 1 + NODES) / 2
    axes.add_patch(
        FancyBboxPatch((1.65, bottom - 0.25), NODES - 0.3, 0.5, boxstyle="round,pad=0.06", facecolor="#fefcbf", edgecolor=_INK, zorder=4)
    )  # fmt: skip
    axes.text(
        middle,
        bottom,
        "output of the cell: nodes 0 to 3, concatenated",
        ha="center",
        va="center",
        fontsize=9,
        color=_INK,
        zorder=6,
    )
    kind = (
        "normal cell (keeps the side)"
        if group == "normal"
        else "reduce cell (halves the side at inputs k\u22122, k\u22121)"
    )
    axes.set_title(kind, color=_INK, fontsize=11)
    axes.set_xlim(-0.6, 1.6 + NODES)
    axes.set_ylim(bottom + 0.5, -0.8)
    axes.axis("off")
    figure.savefig(path)


def _box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x - 0.34, y - 0.22), 0.68, 0.44, boxstyle="round,pad=0.06", facecolor=colour, edgecolor=_INK, zorder=4)
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=_INK, zorder=6)


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
    figure.savefig(path)
