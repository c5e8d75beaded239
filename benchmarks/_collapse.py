"""When a genotype counts as collapsed: when too many of its edges carry operations without parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.images.families import DARTS, NASBENCH201, family_of
from models.search.genotype import Genotype


@dataclass(frozen=True)
class Collapse:
    """The operations counted in ``Family.watched_group``, and how many edges with them make a collapse."""

    ops: tuple[str, ...]
    edges: int
    title: str  # of the column with the count


COLLAPSE: Mapping[str, Collapse] = {
    DARTS.name: Collapse(("skip_connect",), edges=5, title="skips"),  # of the 8 edges of a normal cell
    NASBENCH201.name: Collapse(
        ("none", "skip_connect", "avg_pool_3x3"), edges=4, title="edges without parameters"
    ),  # of the 6 edges of the cell
}


def plain_edges(genotype: Genotype) -> int:
    """How many edges carry one of the counted operations."""
    family = family_of(genotype)
    return sum(genotype.count(op, family.watched_group) for op in COLLAPSE[family.name].ops)


def collapsed(genotype: Genotype) -> bool:
    return plain_edges(genotype) >= COLLAPSE[family_of(genotype).name].edges
