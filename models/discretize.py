"""From a mix to a genotype, and back to the mix that a genotype stands for (DARTS section 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.genotype import Genotype
from models.spaces import SearchSpace
from models.strategies import Mix

INCOMING = 2  # edges kept per node


def discretize(space: SearchSpace, mix: Mix) -> Genotype:
    """The genotype of a mix: two strongest incoming edges per node, strongest operation but ``none`` on each.

    The strength of an edge is its largest weight over the operations but ``none``. A node's pairs come
    strongest first; ties go to the smaller source and to the earlier operation. Pure.
    """
    groups = {}
    for group, edges in space.groups.items():
        rows = mix[group].tolist()
        best: dict[int, list[tuple[float, int, str]]] = {}
        for edge, row in zip(edges, rows, strict=True):
            strength, op = max(
                ((weight, op) for weight, op in zip(row, edge.ops, strict=True) if op != "none"),
                key=lambda candidate: candidate[0],
            )
            best.setdefault(edge.dst, []).append((strength, edge.src, op))
        groups[group] = tuple(
            (src, dst, op)
            for dst, incoming in sorted(best.items())
            for _, src, op in sorted(incoming, key=lambda candidate: -candidate[0])[:INCOMING]
        )
    return Genotype(space.family, groups)


def one_hot(space: SearchSpace, genotype: Genotype) -> dict[str, Tensor]:
    """The mix (edges, operations) a genotype stands for: 1 on chosen operations, edges left out all zero."""
    mix = {}
    for group, edges in space.groups.items():
        chosen = {(src, dst): op for src, dst, op in genotype.groups[group]}
        mix[group] = torch.tensor(
            [[float(chosen.get((edge.src, edge.dst)) == op) for op in edge.ops] for edge in edges]
        )
    return mix
