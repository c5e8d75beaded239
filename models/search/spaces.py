"""A search space: which edges a cell has, and which operations may sit on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # genotypes and spaces are read without torch, which takes seconds to import
    from torch import Tensor


@dataclass(frozen=True)
class Edge:
    """A directed edge of a cell with its candidate operations, in the order of the mix's columns."""

    src: int
    dst: int
    ops: tuple[str, ...]


@dataclass(frozen=True)
class SearchSpace:
    """A named set of cell types; ``groups[cell type]`` are its edges in the order of the mix's rows.

    ``family`` is the ``space`` of genotype.json; one kind of network reads all genotypes of a family. A
    genotype keeps the ``incoming`` strongest edges into each node (None: all of them). With ``exclude_none``,
    no edge of it carries ``none``. The output of a cell is its last node or, with ``concatenated``, all nodes that
    edges lead to.
    """

    name: str
    family: str
    groups: Mapping[str, tuple[Edge, ...]]
    incoming: int | None
    exclude_none: bool
    concatenated: bool = False

    def outputs(self, group: str) -> tuple[int, ...]:
        """The nodes that form the output of a cell type."""
        nodes = sorted({edge.dst for edge in self.groups[group]})
        return tuple(nodes if self.concatenated else nodes[-1:])

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Cell type -> (edges, operations), the shape of its mix.

        All edges of a cell type have the same number of candidates.
        """
        return {group: (len(edges), len(edges[0].ops)) for group, edges in self.groups.items()}


def restricted(space: SearchSpace, shapes: Mapping[str, Sequence[int]]) -> SearchSpace:
    """The beginning of a space: of each group, the first edges with their first operations.

    ``shapes`` (edges, operations) per group are those of a mix. A search that grows appends edges and operations, so its
    space in an earlier epoch is the beginning of the last one.
    """
    if all(tuple(shapes[group]) == shape for group, shape in space.shapes().items()):
        return space
    groups = {}
    for group, edges in space.groups.items():
        count, operations = shapes[group]
        groups[group] = tuple(replace(edge, ops=edge.ops[:operations]) for edge in edges[:count])
    return replace(space, groups=groups)


def shapes_of(mix: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    """Group -> (edges, operations) of a mix."""
    return {group: rows.shape for group, rows in mix.items()}
