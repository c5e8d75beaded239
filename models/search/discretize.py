"""From a mix to its genotype, and from a genotype to its mix (DARTS, section 2.4; NAS-Bench-201)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.search.genotype import Genotype
from models.search.objective import Mix
from models.search.spaces import SearchSpace


def discretize(space: SearchSpace, mix: Mix) -> Genotype:
    """The genotype of a mix: the strongest operation on each edge, and the strongest edges into each node.

    The strength of an edge is its largest weight over the operations that it may keep: all, or all but
    ``none`` if the space excludes ``none``. If the space limits the edges into a node, only the strongest
    stay, strongest first. Ties go to the smaller source and to the earlier operation. Pure.
    """
    groups = {}
    for group, edges in space.groups.items():
        rows = mix[group].tolist()
        best: dict[int, list[tuple[float, int, str]]] = {}
        for edge, row in zip(edges, rows, strict=True):
            allowed = [
                (weight, op)
                for weight, op in zip(row, edge.ops, strict=True)
                if not (space.exclude_none and op == "none")
            ]
            strength, op = max(allowed, key=lambda candidate: candidate[0])
            best.setdefault(edge.dst, []).append((strength, edge.src, op))
        groups[group] = tuple(
            (src, dst, op)
            for dst, incoming in sorted(best.items())
            for _, src, op in _strongest(incoming, space.incoming)
        )
    return Genotype(space.family, groups)


def _strongest(edges: list[tuple[float, int, str]], kept: int | None) -> list[tuple[float, int, str]]:
    return edges if kept is None else sorted(edges, key=lambda candidate: -candidate[0])[:kept]


def one_hot(space: SearchSpace, genotype: Genotype) -> dict[str, Tensor]:
    """Cell type -> the mix (edges, operations) of a genotype: 1 at chosen operations, 0 elsewhere."""
    mix = {}
    for group, edges in space.groups.items():
        chosen = {(src, dst): op for src, dst, op in genotype.groups[group]}
        mix[group] = torch.tensor(
            [[float(chosen.get((edge.src, edge.dst)) == op) for op in edge.ops] for edge in edges]
        )
    return mix
