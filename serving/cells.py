"""Draws the cells of a network as inline SVG that needs neither scripts nor fonts.

Nodes are columns and edges are rows, as in a sequence diagram. Each arrow runs from the node it reads to the
node it feeds, below the name of its operation. Edges never cross, and the names stay readable on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

COLUMN, ROW, MARGIN, HEAD = 52, 34, 28, 36
DARTS_INPUTS = ("cₖ₋₂", "cₖ₋₁")
RECURRENT_INPUTS = {"two-input": ("state", "input"), "one-input": ("input",)}
_COMBINERS = {"sum": "+", "product": "×"}


@dataclass(frozen=True)
class _Cell:
    nodes: tuple[str, ...]
    inputs: int  # of the nodes; they come first
    edges: tuple[tuple[int, int, str], ...]  # source, destination, operation
    joined: tuple[int, ...] = ()  # nodes joined into the output; empty if the last node is the output
    joint: str = ""  # how they are joined


def draw_cells(genotype: Mapping[str, Any]) -> dict[str, str]:
    """Returns one SVG per cell, under the cell's name, and none for a genotype of an unknown space.

    The server works without drawings, so a genotype it cannot draw is not an error.
    """
    try:
        return {name: _draw(name, cell) for name, cell in _cells(genotype).items()}
    except (KeyError, TypeError, ValueError, IndexError):
        return {}


def _cells(genotype: Mapping[str, Any]) -> dict[str, _Cell]:
    if (space := genotype.get("space")) in RECURRENT_INPUTS:
        return {"cell": _recurrent(genotype["nodes"], RECURRENT_INPUTS[space])}
    if "arch_str" in genotype:  # NAS-Bench-201: |op~source|+|op~source|op~source|+...
        edges = []
        for target, node in enumerate(str(genotype["arch_str"]).split("+"), 1):
            for term in node.strip("|").split("|"):
                operation, source = term.split("~")
                edges.append((int(source), target, operation))
        last = max(target for _, target, _ in edges)
        return {"cell": _Cell(("input", *map(str, range(1, last)), "output"), 1, tuple(edges))}
    cells = {}
    for name in ("normal", "reduce"):
        pairs = genotype[name]
        edges = tuple(
            (int(source), 2 + row // 2, str(operation)) for row, (operation, source) in enumerate(pairs)
        )
        nodes = (*DARTS_INPUTS, *map(str, range(len(pairs) // 2)), "out")
        joined = tuple(int(node) for node in genotype[f"{name}_concat"])
        cells[name] = _Cell(nodes, len(DARTS_INPUTS), edges, joined, "concatenate")
    return cells


def _recurrent(nodes: Sequence[Any], inputs: tuple[str, ...]) -> _Cell:
    """The cell of models/sequences: each node has one arrow, or two arrows that + adds and × multiplies."""
    labels, edges = list(inputs), []
    for target, node in enumerate(nodes, len(inputs)):
        pairs, combiner = [node], ""
        if len(inputs) == 2:
            pairs, combiner = [node["left"], node["right"]], f" {_COMBINERS[node['combiner']]}"
        edges += [(int(source), target, str(operation)) for operation, source in pairs]
        labels.append(f"{target - len(inputs) + 1}{combiner}")
    computed = tuple(range(len(inputs), len(labels)))
    return _Cell((*labels, "out"), len(inputs), tuple(edges), computed, "weighted sum")


def _kind(operation: str) -> str:
    for kind in ("sep", "dil", "pool", "skip", "none", "noise", "conv"):
        if kind in operation:
            return kind
    return "skip" if operation == "identity" else "conv"


def _words(operation: str) -> str:
    """``sep_conv_3x3`` -> ``sep conv 3×3``."""
    return re.sub(r"(\d)x(\d)", "\\1×\\2", operation).replace("_", " ")


def _draw(name: str, cell: _Cell) -> str:
    rows = len(cell.edges) + bool(cell.joined)
    width = 2 * MARGIN + COLUMN * (len(cell.nodes) - 1)
    height = HEAD + ROW * rows + 8
    x = [MARGIN + COLUMN * column for column in range(len(cell.nodes))]
    parts = [f"<title>{escape(name)} cell: {escape(_sentence(cell))}</title>"]
    for column, label in enumerate(cell.nodes):
        role = "input" if column < cell.inputs else "node"
        parts.append(
            f'<g class="{role}"><line class="life" x1="{x[column]}" y1="26" x2="{x[column]}" y2="{height}"/>'
            f'<rect x="{x[column] - 22}" y="4" width="44" height="22" rx="5"/>'
            f'<text x="{x[column]}" y="19">{escape(label)}</text></g>'
        )
    for row, (source, target, operation) in enumerate(cell.edges):
        y = HEAD + ROW * row + 22
        words = _words(operation)
        half = 3.6 * len(words) + 2
        middle = min(max((x[source] + x[target]) / 2, half), width - half)
        parts.append(
            f'<g class="edge {_kind(operation)}"><path class="halo" d="M{middle - half} {y - 10}h{2 * half}"/>'
            f'<line x1="{x[source]}" y1="{y}" x2="{x[target] - 7}" y2="{y}"/>'
            f'<circle cx="{x[source]}" cy="{y}" r="3"/><path d="M{x[target]} {y}l-8 -4v8z"/>'
            f'<text x="{middle:g}" y="{y - 6}">{escape(words)}</text></g>'
        )
    if cell.joined:
        y = HEAD + ROW * len(cell.edges) + 22
        dots = "".join(f'<circle cx="{x[node]}" cy="{y}" r="3"/>' for node in cell.joined)
        middle = (x[cell.joined[0]] + x[-1]) / 2
        parts.append(
            f'<g class="edge concat"><path class="halo" d="M{middle - 42} {y - 10}h84"/>'
            f'<line x1="{x[min(cell.joined)]}" y1="{y}" x2="{x[-1] - 7}" y2="{y}"/>{dots}'
            f'<path d="M{x[-1]} {y}l-8 -4v8z"/><text x="{middle:g}" y="{y - 6}">{cell.joint}</text></g>'
        )
    return (
        f'<svg class="cell" xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{"".join(parts)}</svg>'
    )


def _sentence(cell: _Cell) -> str:
    """Describes the drawing for screen readers."""
    return "; ".join(
        f"{cell.nodes[source]} to {cell.nodes[target]} by {_words(operation)}"
        for source, target, operation in cell.edges
    )
