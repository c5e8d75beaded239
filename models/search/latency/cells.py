"""Which architectures of a space keep a budget: the fastest one, and those that alpha's mix prefers.

A genotype is one choice per slot, and the choices do not depend on each other: an operation on an edge or, where a node
keeps some of its edges, these edges with their operations. The mix prefers a genotype by the sum of the logarithms of
the weights of its operations, and discretization takes the one that it prefers most. So genotypes in the order of
preference are a search for the largest sums, best first (Lawler 1972).

Axes: N genotypes, S slots, C choices of a slot, D columns of a code.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.search.genotype import Genotype
from models.search.latency.encoding import Encoding
from models.search.objective import Mix
from models.search.random_cells import edges_of, kept_edges, possible_ops
from models.search.spaces import SearchSpace

Predict = Callable[[Tensor], Tensor]  # codes (N, D) -> ms (N,)
_Edge = tuple[int, int, str]  # source, destination, operation

ALL = 50_000  # genotypes; of smaller spaces, all are looked at
STARTS = 8  # of the local search in larger ones
_BLOCK = 256  # genotypes that are predicted at a time


@dataclass(frozen=True)
class Slot:
    """The choices of one slot: each is some edges of a cell type with their operations."""

    group: str
    choices: Sequence[tuple[_Edge, ...]]


def slots_of(space: SearchSpace) -> list[Slot]:
    """The slots of a space, in the order of the edges of its genotypes."""
    slots = []
    for group, edges in space.groups.items():
        for subsets in kept_edges(space, edges):
            choices = [
                tuple((edge.src, edge.dst, op) for edge, op in zip(some, ops, strict=True))
                for some in subsets
                for ops in itertools.product(*(possible_ops(space, edge) for edge in some))
            ]
            slots.append(Slot(group, choices))
    return slots


class Cells:
    """The genotypes of a space as one choice per slot, and their predicted latency."""

    def __init__(self, space: SearchSpace, predict: Predict):
        self.space, self.predict, self.slots = space, predict, slots_of(space)
        self.encoding = Encoding(space)
        self.count = math.prod(len(slot.choices) for slot in self.slots)
        self.tables = [
            torch.stack([self._rows(slot.group, choice) for choice in slot.choices]) for slot in self.slots
        ]

    def _rows(self, group: str, choice: Sequence[_Edge]) -> Tensor:
        mix = {name: torch.zeros(shape) for name, shape in self.space.shapes().items()}
        for row, edge in enumerate(self.space.groups[group]):
            for src, dst, op in choice:
                if (src, dst) == (edge.src, edge.dst):
                    mix[group][row, edge.ops.index(op)] = 1.0
        return self.encoding.table(mix)

    @torch.no_grad()
    def ms(self, chosen_NS: Tensor) -> Tensor:
        """The predicted latency (N,) of genotypes given as their choices; infinite where no path leads through a cell.

        Such a network computes nothing of its input, and would be the fastest.
        """
        tables = [table[some] for table, some in zip(self.tables, chosen_NS.T, strict=True)]
        chosen_NRO = torch.stack(tables).sum(dim=0)
        ms_N = self.predict(self.encoding.encode_table(chosen_NRO).float())
        return torch.where(self.encoding.connects(chosen_NRO), ms_N, torch.inf)

    def genotype(self, chosen: Sequence[int]) -> Genotype:
        groups: dict[str, tuple[_Edge, ...]] = dict.fromkeys(self.space.groups, ())
        for slot, choice in zip(self.slots, chosen, strict=True):
            groups[slot.group] += slot.choices[choice]
        return Genotype(self.space.family, groups)

    def preferences(self, mix: Mix) -> list[Tensor]:
        """Of each slot, the sums (C,) of the logarithms of its choices' weights."""
        logs = self.encoding.table(mix).cpu().double().clamp_min(1e-300).log()
        return [(table.double() * logs).sum(dim=(1, 2)) for table in self.tables]


def best_first(values: Sequence[Tensor]) -> Iterator[tuple[int, ...]]:
    """One choice per slot, in descending order of the sum of their values (C,); equal sums in a fixed order."""
    orders = [(-value).argsort(stable=True).tolist() for value in values]
    gaps = [(value[order[0]] - value[order]).tolist() for value, order in zip(values, orders, strict=True)]
    start = tuple(0 for _ in values)
    waiting, seen = [(0.0, start)], {start}
    while waiting:
        lost, places = heapq.heappop(waiting)
        yield tuple(order[place] for order, place in zip(orders, places, strict=True))
        for slot, place in enumerate(places):
            if place + 1 < len(gaps[slot]):
                after = (*places[:slot], place + 1, *places[slot + 1 :])
                if after not in seen:
                    seen.add(after)
                    heapq.heappush(waiting, (lost + gaps[slot][place + 1] - gaps[slot][place], after))


def fastest(space: SearchSpace, predict: Predict, seed: int = 0) -> float:
    """The lowest predicted latency (ms) of the space, among cells through which a path leads.

    Exact for spaces of up to ``ALL`` genotypes and where latency is a sum over the slots. Elsewhere it is that of the
    best of some local searches, which change one slot at a time, so that the space may have a faster genotype.
    """
    cells = Cells(space, predict)
    if cells.count <= ALL:
        every = torch.cartesian_prod(*(torch.arange(len(slot.choices)) for slot in cells.slots))
        return min(float(cells.ms(part).min()) for part in every.reshape(cells.count, -1).split(4096))
    source = torch.Generator().manual_seed(seed)
    starts = [_drawn(cells, source) for _ in range(STARTS)]
    return min(float(cells.ms(_descended(cells, start, cells.ms)[None])[0]) for start in starts)


def _drawn(cells: Cells, source: torch.Generator) -> Tensor:
    return torch.stack([torch.randint(len(slot.choices), (), generator=source) for slot in cells.slots])


def _descended(cells: Cells, chosen_S: Tensor, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """Where no change of a single slot costs less."""
    lowest = float("inf")
    while (now := float(cost(chosen_S[None])[0])) < lowest:
        lowest = now
        for slot, part in enumerate(cells.slots):
            tried_CS = chosen_S.repeat(len(part.choices), 1)
            tried_CS[:, slot] = torch.arange(len(part.choices))
            chosen_S = tried_CS[int(cost(tried_CS).argmin())]
    return chosen_S


def next_best(
    space: SearchSpace,
    mix: Mix,
    predict: Predict,
    budget_ms: float,
    *,
    exclude: Collection[Genotype] = (),
    limit: int = 20_000,
) -> Iterator[Genotype]:
    """Genotypes that keep a budget as predicted, in descending order of the mix's preference, none in ``exclude``.

    Cells through which no path leads are left out.

    The first ``limit`` genotypes of the space are looked at in this order, so that none is missed among them. If they
    do not contain any, genotypes farther from the mix are looked for where preference and latency are traded, and the
    best of them come, in the same order. They are few, and there may be better ones.
    """
    cells, passed = Cells(space, predict), {edges_of(genotype) for genotype in exclude}
    preferences = cells.preferences(mix)
    found = False
    in_order = itertools.islice(best_first(preferences), limit)
    while block := list(itertools.islice(in_order, _BLOCK)):
        for chosen, ms in zip(block, cells.ms(torch.tensor(block)).tolist(), strict=True):
            if ms <= budget_ms and edges_of(genotype := cells.genotype(chosen)) not in passed:
                found = True
                yield genotype
    if not found and cells.count > limit:
        yield from _far(cells, preferences, budget_ms, passed)


def _far(
    cells: Cells, preferences: Sequence[Tensor], budget_ms: float, passed: Collection[object]
) -> Iterator[Genotype]:
    """Genotypes within the budget around the best trades of preference against latency."""

    def preference(chosen_NS: Tensor) -> Tensor:
        parts = [value[some] for value, some in zip(preferences, chosen_NS.T, strict=True)]
        return torch.stack(parts).sum(dim=0)

    start = torch.stack([value.argmax() for value in preferences])
    within: dict[tuple[int, ...], float] = {}
    for price in (2.0**power for power in range(-2, 16)):

        def cost(chosen_NS: Tensor, price: float = price) -> Tensor:
            over_N = (cells.ms(chosen_NS).double() / budget_ms - 1).clamp_min(0.0)
            return price * over_N - preference(chosen_NS)

        start = _descended(cells, start, cost)
        for slot, part in enumerate(cells.slots):
            tried_CS = start.repeat(len(part.choices), 1)
            tried_CS[:, slot] = torch.arange(len(part.choices))
            kept = cells.ms(tried_CS) <= budget_ms
            within |= dict(
                zip(map(tuple, tried_CS[kept].tolist()), preference(tried_CS[kept]).tolist(), strict=True)
            )
    for chosen in sorted(within, key=lambda chosen: (-within[chosen], chosen)):
        if edges_of(genotype := cells.genotype(chosen)) not in passed:
            yield genotype
