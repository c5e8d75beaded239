"""The content of ``genotype.json``: the family's name (``space``), and each computed node with what it takes.

    {"space": "two-input", "nodes": [{"left": ["sigmoid", 1], "right": ["identity", 0], "combiner": "product"}, ...]}
    {"space": "one-input", "nodes": [["tanh", 0], ...]}

A pair is an operation and the node that it is applied to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.search.genotype import Genotype
from models.sequences.spaces import COMBINERS, ONE_INPUT, OPERATIONS, SPACES, TWO_INPUT

CHOSEN = tuple(op for op in OPERATIONS if op != "none")  # what an edge of a found cell may carry
INPUTS: Mapping[str, int] = {TWO_INPUT: 2, ONE_INPUT: 1}  # nodes that are not computed


def to_json(genotype: Genotype) -> dict[str, Any]:
    """The content of ``genotype.json``."""
    groups = genotype.groups
    if genotype.space == ONE_INPUT:
        nodes: list[Any] = [[op, src] for src, _, op in groups["cell"]]
    else:
        nodes = [
            {"left": [left, src], "right": [right, other], "combiner": combiner}
            for (src, _, left), (other, _, right), (_, _, combiner) in zip(
                groups["left"], groups["right"], groups["combiner"], strict=True
            )
        ]
    return {"space": genotype.space, "nodes": nodes}


def from_json(content: Mapping[str, Any]) -> Genotype:
    """Reads what ``to_json`` writes. Raises InvalidInput for what is no cell."""
    space, nodes = content.get("space"), content.get("nodes")
    if not isinstance(space, str) or space not in SPACES:
        raise InvalidInput(f"genotype: space {space!r} is unknown; expected {' or '.join(map(repr, SPACES))}")
    if not isinstance(nodes, list) or not nodes:
        raise InvalidInput(f"genotype: nodes is {nodes!r}; expected a list with one entry per node")
    groups: dict[str, list[tuple[int, int, str]]] = {}
    for dst, node in enumerate(nodes, start=INPUTS[space]):
        if space == ONE_INPUT:
            groups.setdefault("cell", []).append(_edge(node, dst, f"node {dst}"))
            continue
        if not isinstance(node, Mapping) or set(node) != {"left", "right", "combiner"}:
            raise InvalidInput(
                f"genotype: node {dst} is {node!r}; expected an object with left, right and combiner"
            )
        for side in ("left", "right"):
            groups.setdefault(side, []).append(_edge(node[side], dst, f"node {dst}, {side}"))
        if node["combiner"] not in COMBINERS:
            raise InvalidInput(
                f"genotype: node {dst}, combiner is {node['combiner']!r}; expected one of {', '.join(COMBINERS)}"
            )
        groups.setdefault("combiner", []).append((dst, dst, node["combiner"]))
    return Genotype(space, {group: tuple(edges) for group, edges in groups.items()})


def _edge(pair: object, dst: int, where: str) -> tuple[int, int, str]:
    match pair:
        case [str(op), int(src)] if op in CHOSEN and not isinstance(src, bool) and 0 <= src < dst:
            return src, dst, op
    raise InvalidInput(
        f"genotype: {where} is {pair!r}; expected an operation ({', '.join(CHOSEN)}) and a node from 0 to {dst - 1}"
    )
