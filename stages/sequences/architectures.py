"""The search spaces of recurrent cells, genotype.json, and how a found cell is drawn: every node with all that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from models.sequences.genotype import from_json, to_json
from models.sequences.spaces import ONE_INPUT, named
from stages import pictures
from stages.contracts import Layout

_PICTURE = "cell"
_SIGNS = {"sum": "+", "product": "×"}
_NARROW = 3.5  # inches: the width of a phone


@dataclass(frozen=True)
class _Node:
    """A computed node: its title, what it takes, and how it combines that."""

    title: str
    sides: Sequence[tuple[str, int]]  # operation and source
    combiner: str | None = None


def space(name: str, *, exclude_none: bool) -> SearchSpace:
    """The search space of that name. No found cell of these spaces has an edge with ``none``."""
    return named(name)


def genotype_json(genotype: Genotype) -> dict[str, Any]:
    return to_json(genotype)


def genotype_of(content: Mapping[str, Any]) -> Genotype:
    return from_json(content)


def layout(genotype: Genotype) -> Layout:
    titles, nodes = _titles(genotype), _nodes(genotype)
    inputs = len(titles) - len(nodes)
    return Layout(
        nodes=titles,
        inputs=inputs,
        outputs=range(inputs, len(titles)),
        titles={
            _PICTURE: "recurrent cell",
            "left": "left sides",
            "right": "right sides",
            "combiner": "how the sides are combined",
        },
        drawings={_PICTURE: partial(_draw, titles, nodes)},
        note=(
            "“Start” is made of the input and of the state, of which a learned gate lets parts through."
            if genotype.space == ONE_INPUT
            else "“State” is the cell's output at the time step before, and “input” a linear function of it and of the input."
        ),
    )


def _titles(genotype: Genotype) -> list[str]:
    """The titles of all nodes, by their numbers in genotype.json."""
    first = ["start"] if genotype.space == ONE_INPUT else ["state", "input"]
    count = len(next(iter(genotype.groups.values())))
    return [*first, *(f"node {len(first) + number}" for number in range(count))]


def _nodes(genotype: Genotype) -> list[_Node]:
    titles, groups = _titles(genotype), genotype.groups
    if genotype.space == ONE_INPUT:
        return [_Node(titles[dst], [(op, src)]) for src, dst, op in groups["cell"]]
    return [
        _Node(titles[dst], [(left, src), (right, other)], combiner)
        for (src, dst, left), (other, _, right), (_, _, combiner) in zip(
            groups["left"], groups["right"], groups["combiner"], strict=True
        )
    ]


def _draw(titles: Sequence[str], nodes: Sequence[_Node], file: Path | BinaryIO, *, narrow: bool) -> None:
    """Draws a cell: on a phone one row per node, as a formula; otherwise the ways from node to node."""
    figure = _formulas(titles, nodes) if narrow else _ways(titles, nodes)
    figure.savefig(file)


def _ways(titles: Sequence[str], nodes: Sequence[_Node]) -> Figure:
    """One column per node, which begins where the node is computed, and one row per side of a node."""
    rows = sum(len(node.sides) for node in nodes)
    inputs, height = len(titles) - len(nodes), rows + 0.7 * len(nodes)
    figure = Figure(figsize=(1.55 * len(titles) + 0.4, 0.42 * height + 1.3), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    bottom, begins = height + 0.5, [0.0] * inputs
    y = 0.35
    for column, node in enumerate(nodes, start=inputs):
        middle = y + 0.5 * len(node.sides)
        for row, (op, src) in enumerate(node.sides):
            _way(axes, src, column, y + row + 0.5, middle, op)
        _box(axes, column, middle, _sign(node) + node.title, pictures.NODE)
        begins.append(middle)
        y += len(node.sides) + 0.7
    for column, begin in enumerate(begins):
        used = _last_use(nodes, column)
        end = bottom if column >= inputs else used
        axes.plot([column, column], [begin, end], color=pictures.LINE, linewidth=1.5, zorder=1)
    for column in range(inputs):
        _box(axes, column, -0.1, titles[column], pictures.INPUT)
    width = max(len(nodes) - 0.3, 2.6)
    center = min((inputs + len(titles) - 1) / 2, len(titles) - 0.5 - width / 2)
    _box(axes, center, bottom, "output: the nodes × learned gates, added", pictures.OUTPUT, width)
    axes.set_xlim(-0.6, len(titles) - 0.35)
    axes.set_ylim(bottom + 0.5, -0.6)
    axes.axis("off")
    return figure


def _way(axes: Axes, src: int, dst: int, y: float, end: float, op: str) -> None:
    """The arrow of one side, from the line of its source to the box of its node."""
    colour = pictures.COLOURS[op]
    axes.plot(src, y, marker="o", color=colour, markersize=6, zorder=3)
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "mutation_scale": 14, "shrinkA": 0}
    target = (dst - 0.41, end + 0.12 * ((y > end) - (y < end)))
    axes.annotate("", xy=target, xytext=(src, y), zorder=2, arrowprops={**arrow, "shrinkB": 0})
    share = 0.5 if dst - src > 1 else 0.46
    place = (src + share * (target[0] - src), y + share * (target[1] - y))
    label = {"boxstyle": "round,pad=0.22", "facecolor": colour, "edgecolor": pictures.PAPER}
    axes.text(*place, op, color=pictures.PAPER, fontsize=8.5, ha="center", va="center", bbox=label, zorder=5)


def _last_use(nodes: Sequence[_Node], column: int) -> float:
    """How far down the line of a node reaches: to the last row that takes it."""
    y, last = 0.35, 0.2
    for node in nodes:
        for row, (_, src) in enumerate(node.sides):
            if src == column:
                last = y + row + 0.5
        y += len(node.sides) + 0.7
    return last


def _formulas(titles: Sequence[str], nodes: Sequence[_Node]) -> Figure:
    """One row per node: its title, and its sides as boxes with the combiner's sign between them."""
    figure = Figure(figsize=(_NARROW, 0.42 * (len(nodes) + 1.3)), layout="constrained")
    axes = figure.add_subplot()
    sides = len(nodes[0].sides)
    width = 2.6 / sides
    for row, node in enumerate(nodes):
        axes.text(
            -0.05, row, f"{node.title} =", fontsize=9, color=pictures.INK, ha="right", va="center", zorder=6
        )
        for number, (op, src) in enumerate(node.sides):
            x = 0.1 + number * (width + 0.3) + width / 2
            colour, words = pictures.COLOURS[op], f"{op}({titles[src]})"
            _box(axes, x, row, words, colour, width - 0.1, pictures.PAPER, 8)
        if node.combiner:
            axes.text(
                0.1 + width + 0.15,
                row,
                _SIGNS[node.combiner],
                fontsize=12,
                color=pictures.INK,
                ha="center",
                va="center",
                zorder=6,
            )
    _box(
        axes,
        1.05,
        len(nodes) + 0.1,
        "output: the nodes × learned gates, added",
        pictures.OUTPUT,
        3.6,
        size=8.5,
    )
    axes.set_xlim(-0.85, 3.1)
    axes.set_ylim(len(nodes) + 0.6, -0.6)
    axes.axis("off")
    return figure


def _sign(node: _Node) -> str:
    return f"{_SIGNS[node.combiner]}  " if node.combiner else ""


def _box(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    width: float = 0.72,
    ink: str = pictures.INK,
    size: float = 9,
) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.24),
        width,
        0.48,
        boxstyle="round,pad=0.04",
        facecolor=colour,
        edgecolor=pictures.INK,
        zorder=4,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=ink, zorder=6)
