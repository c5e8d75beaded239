"""The most likely network of a mix that a predictor expects within a latency.

Networks are tried in the order of the product of the weights that their operations have in the mix, best first.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterator

import torch

from models.search.genotype import Genotype
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import Predictor
from models.search.objective import Mix
from models.search.random_cells import edges_of
from models.search.spaces import SearchSpace

_BLOCK, _MOST = 512, 2**15  # networks that are predicted at once; that are looked at
_LEAST = 1e-12  # a weight, of which a logarithm is taken

_Choice = tuple[float, tuple[tuple[int, int, str], ...]]  # logarithm of weights, edges into a node


def next_best(
    space: SearchSpace, mix: Mix, predictor: Predictor, limit_ms: float, tried: Collection[Genotype]
) -> Genotype | None:
    """The best network predicted within ``limit_ms`` that is not among ``tried``; None when there is none near."""
    encoding, known = Encoding(space), {edges_of(genotype) for genotype in tried}
    series = itertools.islice(best_first(space, mix), _MOST)
    while block := list(itertools.islice(series, _BLOCK)):
        ms_N = predictor(torch.stack([encoding.encode(genotype) for genotype in block]))
        for genotype, ms in zip(block, ms_N.tolist(), strict=True):
            if ms <= limit_ms and edges_of(genotype) not in known:
                return genotype
    return None


def best_first(space: SearchSpace, mix: Mix) -> Iterator[Genotype]:
    """All networks of a space, by falling product of the weights of their operations."""
    nodes = [
        (group, node, options) for group in space.groups for node, options in _options(space, mix, group)
    ]
    first: tuple[int, ...] = (0,) * len(nodes)

    def worth(places: tuple[int, ...]) -> float:
        return -sum(options[place][0] for place, (_, _, options) in zip(places, nodes, strict=True))

    waiting: list[tuple[float, tuple[int, ...], int]] = [(worth(first), first, 0)]
    while waiting:
        _, places, last = heapq.heappop(waiting)
        chosen: dict[str, list[tuple[int, int, str]]] = {group: [] for group in space.groups}
        for place, (group, _, options) in zip(places, nodes, strict=True):
            chosen[group] += options[place][1]
        yield Genotype(space.family, {group: tuple(edges) for group, edges in chosen.items()})
        for at in range(last, len(nodes)):  # only from the last that moved, so that none comes twice
            if places[at] + 1 < len(nodes[at][2]):
                moved = (*places[:at], places[at] + 1, *places[at + 1 :])
                heapq.heappush(waiting, (worth(moved), moved, at))


def _options(space: SearchSpace, mix: Mix, group: str) -> Iterator[tuple[int, list[_Choice]]]:
    """Node -> what may lead into it, best first. Edges are in the order of falling weight, as discretization has them."""
    into: dict[int, list[list[tuple[float, tuple[int, int, str]]]]] = {}
    for edge, row in zip(space.groups[group], mix[group].clamp_min(_LEAST).log().tolist(), strict=True):
        ops = [
            (weight, (edge.src, edge.dst, op))
            for weight, op in zip(row, edge.ops, strict=True)
            if not (space.exclude_none and op == "none")
        ]
        into.setdefault(edge.dst, []).append(ops)
    for node, edges in sorted(into.items()):
        kept = len(edges) if space.incoming is None else min(space.incoming, len(edges))
        found: list[_Choice] = []
        for some in itertools.combinations(edges, kept):
            for ops in itertools.product(*some):
                ordered = ops if space.incoming is None else sorted(ops, key=lambda op: -op[0])
                found.append((sum(weight for weight, _ in ops), tuple(edge for _, edge in ordered)))
        yield node, sorted(found, key=lambda choice: -choice[0])
