"""Which architectures of a space are measured: its corners, random ones, and some where the predictor is unsure.

The series is the same for the same seed and measurements, so that an interrupted stage goes on with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from models.search.genotype import Genotype
from models.search.random_cells import edges_of, random_cells
from models.search.spaces import Edge, SearchSpace
from models.training.seeds import generator

_CHOICE = 4  # random architectures for each that is measured where the predictor is unsure

T = TypeVar("T")
Unsure = Callable[[Sequence[Genotype]], Tensor]  # genotypes -> relative disagreement (N,)


@dataclass
class Plan:
    """The architectures of a table, drawn as their number is asked for."""

    space: SearchSpace
    seed: int
    _seen: set[frozenset] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._corners = iter(corners(self.space))
        self._random = random_cells(self.space, generator(self.seed, "latency samples"))

    def held_out(self, count: int) -> list[Genotype]:
        """Random architectures, for tests; they must be drawn first."""
        return self._new(self._random, count)

    def first(self, count: int) -> list[Genotype]:
        """The corners and random architectures. Fewer than ``count`` where the space has no more."""
        return self._new(itertools.chain(self._corners, self._random), count)

    def unsure(self, count: int, spread: Unsure) -> list[Genotype]:
        """Of four times as many random architectures, those that the predictor is least sure of."""
        drawn = self._new(self._random, _CHOICE * count)
        if len(drawn) <= count:
            return drawn
        chosen = spread(drawn).topk(count).indices.sort().values
        return [drawn[place] for place in chosen.tolist()]

    def _new(self, series: Iterator[Genotype], count: int) -> list[Genotype]:
        found: list[Genotype] = []
        while len(found) < count and (genotype := next(series, None)) is not None:
            if (edges := edges_of(genotype)) not in self._seen:
                self._seen.add(edges)
                found.append(genotype)
        return found


def corners(space: SearchSpace) -> list[Genotype]:
    """The architectures whose edges all carry the same operation, where they offer it; without repetition."""
    ops = dict.fromkeys(op for edges in space.groups.values() for edge in edges for op in edge.ops)
    found = {}
    for op in ops:
        if not (space.exclude_none and op == "none"):
            genotype = Genotype(
                space.family, {group: _all_of(space, edges, op) for group, edges in space.groups.items()}
            )
            found.setdefault(edges_of(genotype), genotype)
    return list(found.values())


def _all_of(space: SearchSpace, edges: Sequence[Edge], op: str) -> tuple[tuple[int, int, str], ...]:
    """Into each node the first edges that it keeps."""
    chosen = []
    ordered = sorted(edges, key=lambda edge: (edge.dst, edge.src))
    for _, incoming in itertools.groupby(ordered, key=lambda edge: edge.dst):
        for edge in itertools.islice(incoming, space.incoming):
            offered = [other for other in edge.ops if not (space.exclude_none and other == "none")]
            chosen.append((edge.src, edge.dst, op if op in offered else offered[0]))
    return tuple(chosen)


def drawn_again(measured: Sequence[T], count: int, seed: int) -> list[T]:
    """Of what is measured those that are measured a second time, at random."""
    order = torch.randperm(len(measured), generator=generator(seed, "measured again"))
    return [measured[place] for place in order[:count].tolist()]
