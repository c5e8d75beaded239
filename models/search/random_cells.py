"""Random cells of a search space, which every search should beat (Li and Talwalkar, arXiv 1902.07638).

All genotypes that discretization can yield are equally likely. Two genotypes are the same cell when they have the
same edges, in whatever order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence

import torch

from models.search.genotype import Genotype
from models.search.spaces import Edge, SearchSpace

_Choice = tuple[int, int, str]  # source, destination, operation


def random_cells(
    space: SearchSpace, generator: torch.Generator, exclude: Collection[Genotype] = ()
) -> Iterator[Genotype]:
    """Genotypes drawn without repetition, none of them in ``exclude``; ends when the space has no more.

    A longer series from the same generator begins with the shorter one.
    """
    seen = {edges_of(genotype) for genotype in exclude}
    left = number_of_cells(space) - len(seen)
    while left > 0:
        genotype = random_cell(space, generator)
        if (edges := edges_of(genotype)) not in seen:
            seen.add(edges)
            left -= 1
            yield genotype


def random_cell(space: SearchSpace, generator: torch.Generator) -> Genotype:
    """One genotype. Its edges are in the order of the nodes, and for each node in the order of their sources."""
    groups = {}
    for group, edges in space.groups.items():
        chosen: list[_Choice] = []
        for incoming in _by_node(edges):
            kept = _subsets(space, incoming)
            weights = [math.prod(len(possible_ops(space, edge)) for edge in some) for some in kept]
            which = kept[_draw(weights, generator)]
            for edge in which:
                ops = possible_ops(space, edge)
                chosen.append((edge.src, edge.dst, ops[_draw([1] * len(ops), generator)]))
        groups[group] = tuple(chosen)
    return Genotype(space.family, groups)


def number_of_cells(space: SearchSpace) -> int:
    """How many cells a search in this space can end with."""
    return math.prod(
        sum(math.prod(len(possible_ops(space, edge)) for edge in some) for some in _subsets(space, incoming))
        for edges in space.groups.values()
        for incoming in _by_node(edges)
    )


def edges_of(genotype: Genotype) -> frozenset[tuple[str, frozenset[_Choice]]]:
    """What makes two genotypes the same cell."""
    return frozenset((group, frozenset(edges)) for group, edges in genotype.groups.items())


def _by_node(edges: Sequence[Edge]) -> list[list[Edge]]:
    """The edges into each node."""
    ordered = sorted(edges, key=lambda edge: (edge.dst, edge.src))
    return [list(incoming) for _, incoming in itertools.groupby(ordered, key=lambda edge: edge.dst)]


def kept_edges(space: SearchSpace, edges: Sequence[Edge]) -> list[list[Sequence[Edge]]]:
    """Of the edges of a cell type, those whose choice is independent of others, and the sets of them that may stay.

    That is each edge by itself or, where nodes keep some of their edges, the edges into each node.
    """
    if space.incoming is None:
        return [[(edge,)] for edge in edges]
    return [_subsets(space, incoming) for incoming in _by_node(edges)]


def _subsets(space: SearchSpace, incoming: Sequence[Edge]) -> list[Sequence[Edge]]:
    """The sets of edges that may stay of those into a node."""
    if space.incoming is None:
        return [incoming]
    return list(itertools.combinations(incoming, min(space.incoming, len(incoming))))


def possible_ops(space: SearchSpace, edge: Edge) -> list[str]:
    """The operations that an edge may keep."""
    return [op for op in edge.ops if not (space.exclude_none and op == "none")]


def _draw(weights: Sequence[int], generator: torch.Generator) -> int:
    """A place with a probability proportional to its weight."""
    ticket = int(torch.randint(sum(weights), (1,), generator=generator))
    return next(place for place, end in enumerate(itertools.accumulate(weights)) if ticket < end)
