"""Which candidates of a mix stay when only so many may: the weakest go first.

Pruning does not preserve the function that the supernet computes: what a pruned candidate weighed goes to the others of
its row.

Axes: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.search.objective import Mix
from models.search.smoothing import Live
from models.search.spaces import SearchSpace


def pruned(space: SearchSpace, mix: Mix, live: Live, budget: int) -> dict[str, Tensor]:
    """Group -> which candidates stay live (E, O), at most ``budget`` besides ``none``, if that many can go.

    Candidates go in the order of their weights in the mix; ties go to the later group, edge and operation. ``none`` always
    stays and does not count. Every edge keeps a candidate, and every node keeps as many edges that a genotype may have as a
    genotype has.
    """
    kept = {group: live[group].cpu().clone() for group in space.groups}
    order = [
        (weight, -place, -row, -column)
        for place, group in enumerate(space.groups)
        for row, weights in enumerate(mix[group].tolist())
        for column, weight in enumerate(weights)
        if kept[group][row, column] and space.groups[group][row].ops[column] != "none"
    ]
    left = len(order)
    names = list(space.groups)
    for _, place, row, column in sorted(order):
        if left <= budget:
            break
        group = names[-place]
        kept[group][-row, -column] = False
        if _enough(space, group, kept[group], -row):
            left -= 1
        else:
            kept[group][-row, -column] = True
    return {group: mask.to(live[group].device) for group, mask in kept.items()}


def least(space: SearchSpace) -> int:
    """The smallest budget that pruning can keep to, for whatever mix."""
    live = {group: torch.ones(shape, dtype=torch.bool) for group, shape in space.shapes().items()}
    mix = {group: torch.ones(shape) for group, shape in space.shapes().items()}
    return count(space, pruned(space, mix, live, 0))


def count(space: SearchSpace, live: Live) -> int:
    """How many candidates besides ``none`` are live."""
    return sum(
        int(mask[row, column])
        for group, mask in _on_cpu(live).items()
        for row, edge in enumerate(space.groups[group])
        for column, op in enumerate(edge.ops)
        if op != "none"
    )


def _on_cpu(live: Live) -> Mapping[str, Tensor]:
    return {group: mask.cpu() for group, mask in live.items()}


def _enough(space: SearchSpace, group: str, kept_EO: Tensor, row: int) -> bool:
    """Whether the row and the node that its edge leads to keep what they need."""
    if not bool(kept_EO[row].any()):
        return False
    edges = space.groups[group]
    into = [index for index, edge in enumerate(edges) if edge.dst == edges[row].dst]

    def eligible(index: int) -> bool:
        live = zip(edges[index].ops, kept_EO[index].tolist(), strict=True)
        return any(lives and not (space.exclude_none and op == "none") for op, lives in live)

    needed = len(into) if space.incoming is None else min(space.incoming, len(into))
    return sum(map(eligible, into)) >= needed
