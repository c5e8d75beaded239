"""Draws the cells of a network as inline SVG that needs neither scripts nor fonts.

Nodes are columns and edges are rows, as in a sequence diagram. Each arrow runs from the node it reads to the
node it feeds, below the name of its operation. Edges never cross, and the names stay readable on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

COLUMN, ROW, MARGIN, HEAD = 52, 34, 28, 36
DARTS_INPUTS = ("cₖ₋₂", "cₖ₋₁")


@dataclass(frozen=True)
class _Cell:
    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]  # source, destination, operation
    concat: tuple[int, ...]  # nodes concatenated into the output; empty if the last node is the output


def draw_cells(genotype: Mapping[str, Any]) -> dict[str, str]:
    """Returns one SVG per cell, under the cell's name, and none for a genotype of an unknown space.

    The server works without drawings, so a genotype it cannot draw is not an error.
    """
    try:
        return {name: _draw(name, cell) for name, cell in _cells(genotype).items()}
    except (KeyError, TypeError, ValueError, IndexError):
        return {}


def _cells(genotype: Mapping[str, Any]) -> dict[str, _Cell]:
    if "arch_str" in genotype:  # NAS-Bench-201: |op~source|+|op~source|op~source|+...
        edges = []
        for target, node in enumerate(str(genotype["arch_str"]).split("+"), 1):
            for term in node.strip("|").split("|"):
                operation, source = term.split("~")
                edges.append((int(source), target, operation))
        last = max(target for _, target, _ in edges)
        return {"cell": _Cell(("input", *map(str, range(1, last)), "output"), tuple(edges), ())}
    cells = {}
    for name in ("normal", "reduce"):
        pairs = genotype[name]
        edges = tuple(
            (int(source), 2 + row // 2, str(operation)) for row, (operation, source) in enumerate(pairs)
        )
        nodes = (*DARTS_INPUTS, *map(str, range(len(pairs) // 2)), "out")
        cells[name] = _Cell(nodes, edges, tuple(int(node) for node in genotype[f"{name}_concat"]))
    return cells


def _kind(operation: str) -> str:
    for kind in ("sep", "dil", "pool", "skip", "none", "noise", "conv"):
        if kind in operation:
            return kind
    return "conv"


def _words(operation: str) -> str:
    """``sep_conv_3x3`` -> ``sep conv 3×3``."""
    return re.sub(r"(\d)x(\d)", "\\1×\\2", operation).replace("_", " ")


def _draw(name: str, cell: _Cell) -> str:
    rows = len(cell.edges) + bool(cell.concat)
    width = 2 * MARGIN + COLUMN * (len(cell.nodes) - 1)
    height = HEAD + ROW * rows + 8
    x = [MARGIN + COLUMN * column for column in range(len(cell.nodes))]
    parts = [f"<title>{escape(name)} cell: {escape(_sentence(cell))}</title>"]
    for column, label in enumerate(cell.nodes):
        role = "input" if (column < len(DARTS_INPUTS) and cell.concat) or column == 0 else "node"
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
    if cell.concat:
        y = HEAD + ROW * len(cell.edges) + 22
        dots = "".join(f'<circle cx="{x[node]}" cy="{y}" r="3"/>' for node in cell.concat)
        middle = (x[cell.concat[0]] + x[-1]) / 2
        parts.append(
            f'<g class="edge concat"><path class="halo" d="M{middle - 42} {y - 10}h84"/>'
            f'<line x1="{x[min(cell.concat)]}" y1="{y}" x2="{x[-1] - 7}" y2="{y}"/>{dots}'
            f'<path d="M{x[-1]} {y}l-8 -4v8z"/><text x="{middle:g}" y="{y - 6}">concatenate</text></g>'
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
