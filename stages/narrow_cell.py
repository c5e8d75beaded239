"""A cell as narrow as a phone: the report shows it where ``pictures.cell`` would need to be scrolled."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from models.search.genotype import Genotype
from stages.contracts import Layout
from stages.pictures import COLOURS, INK, INPUT, LINE, NODE, OUTPUT, File, name_of

_COLUMN, _ROW = 0.56, 0.4  # inches per node and per edge


def narrow_cell(file: File, genotype: Genotype, group: str, layout: Layout) -> None:
    """Draws a cell as ``pictures.cell`` does, with the operation's name above its arrow instead of on it.

    So a column only has to be as wide as the short title of a node, and letters stay readable on a screen of 390 pixels.
    """
    if group in layout.drawings:
        layout.drawings[group](file, narrow=True)
        return
    edges = genotype.groups[group]
    nodes, output = layout.nodes, layout.outputs
    figure = Figure(figsize=(_COLUMN * len(nodes), _ROW * (len(edges) + 2.6)), layout="constrained")
    axes = figure.add_subplot()
    bottom = len(edges) + 1.0
    for node, title in enumerate(nodes):
        short = title.removeprefix("cell ").removeprefix("node ")
        _box(axes, node, -0.3, short, INPUT if node < layout.inputs else NODE, 0.72)
        used = [row for row, edge in enumerate(edges) if edge[0] == node]
        end = bottom if node in output else max(used, default=-1) + 1.0
        axes.plot([node, node], [0, end], color=LINE, linewidth=1.2, zorder=1)
    for row, (src, dst, op) in enumerate(edges):
        y, colour = row + 0.8, COLOURS.get(op, INK)
        axes.plot(src, y, marker="o", color=colour, markersize=4, zorder=3)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "mutation_scale": 11}
        axes.annotate(
            "", xy=(dst, y), xytext=(src, y), zorder=2, arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0}
        )
        place = min(max((src + dst) / 2, 0.5), len(nodes) - 1.5)  # within the drawing
        axes.text(place, y - 0.08, name_of(op), fontsize=9.5, color=INK, ha="center", va="bottom", zorder=5)
    text = "output" if len(output) == 1 else "output: concatenated"
    width = max(len(output) - 0.32, 1.4)
    _box(axes, (output[0] + output[-1]) / 2, bottom, text, OUTPUT, width)
    axes.set_title(layout.title(group), color=INK, fontsize=11)
    axes.set_xlim(-0.6, len(nodes) - 0.4)
    axes.set_ylim(bottom + 0.5, -0.8)
    axes.axis("off")
    figure.savefig(file)


def _box(axes: Axes, x: float, y: float, text: str, colour: str, width: float) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.24),
        width,
        0.48,
        boxstyle="round,pad=0.04",
        facecolor=colour,
        edgecolor=INK,
        zorder=4,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK, zorder=6)
