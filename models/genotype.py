"""A genotype: the discrete cell that a search found, and its form in ``genotype.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import InvalidInput
from models.ops import OPERATIONS
from models.spaces import NODES


@dataclass(frozen=True)
class Genotype:
    """Cell type -> the chosen edges (source node, destination node, operation), in DARTS order: node by node."""

    space: str
    groups: Mapping[str, tuple[tuple[int, int, str], ...]]

    def count(self, op: str, group: str) -> int:
        """How many edges of a cell type carry an operation."""
        return sum(chosen == op for _, _, chosen in self.groups[group])


def to_json(genotype: Genotype) -> dict[str, Any]:
    """The content of ``genotype.json``: DARTS pairs ``[operation, source]``, two for each of the four nodes."""
    content: dict[str, Any] = {"space": genotype.space}
    for group, edges in genotype.groups.items():
        content[group] = [[op, src] for src, _, op in edges]
        content[f"{group}_concat"] = list(range(2, 2 + NODES))
    return content


def from_json(content: Mapping[str, Any]) -> Genotype:
    """Reads the form of ``to_json``; ``space`` may be absent. Raises InvalidInput for anything no network has."""
    space = content.get("space", "darts")
    if space != "darts":
        raise InvalidInput(f"genotype: space {space!r} is unknown; expected 'darts'")
    groups = {}
    for group in ("normal", "reduce"):
        pairs = content.get(group)
        if not isinstance(pairs, list) or len(pairs) != 2 * NODES:
            raise InvalidInput(
                f"genotype: {group!r} must be a list of {2 * NODES} pairs [operation, source], two a node"
            )
        if content.get(f"{group}_concat", list(range(2, 2 + NODES))) != list(range(2, 2 + NODES)):
            raise InvalidInput(f"genotype: {group}_concat must be {list(range(2, 2 + NODES))}")
        edges = []
        for position, pair in enumerate(pairs):
            dst = 2 + position // 2
            if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[1], int)):
                raise InvalidInput(f"genotype: {group}[{position}] is {pair!r}; expected [operation, source]")
            op, src = pair
            if op not in OPERATIONS or op == "none":
                known = ", ".join(name for name in OPERATIONS if name != "none")
                raise InvalidInput(f"genotype: {group}[{position}] has operation {op!r}; choose one of {known}")
            if not 0 <= src < dst:
                raise InvalidInput(f"genotype: {group}[{position}] has source {src}; node {dst} takes 0..{dst - 1}")
            edges.append((src, dst, op))
        groups[group] = tuple(edges)
    return Genotype("darts", groups)
