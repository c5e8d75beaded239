"""A genotype: the discrete cell that a search found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Genotype:
    """Cell type -> the chosen edges (source node, destination node, operation), node by node.

    ``space`` is the name of the search space's family.
    """

    space: str
    groups: Mapping[str, tuple[tuple[int, int, str], ...]]

    def count(self, op: str, group: str) -> int:
        """How many edges of a cell type carry an operation."""
        return sum(chosen == op for _, _, chosen in self.groups[group])

    def changes(self, before: Genotype) -> int:
        """How many edges of this genotype, operation included, ``before`` did not have."""
        return sum(len(set(edges) - set(before.groups[group])) for group, edges in self.groups.items())
