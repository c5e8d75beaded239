"""Search spaces: which edges a cell has and which operations may sit on each.

S5 is the full space of DARTS (arXiv 1806.09055); S1..S4 are the reduced spaces of RobustDARTS (arXiv
1909.09656), built there to make searches collapse. NAS-Bench-201 (arXiv 2001.00326) has one small cell, and
all 15,625 forms of that cell have been trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from models.errors import InvalidInput
from models.search.spaces import Edge, SearchSpace

NODES = 4  # intermediate nodes of a DARTS cell, from 2 on; 0 and 1 are the outputs of the two cells before


def darts_edges() -> list[tuple[int, int]]:
    """(src, dst) of the 14 edges of a DARTS cell, node by node, inputs ascending."""
    return [(src, dst) for dst in range(2, 2 + NODES) for src in range(dst)]


S5_OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# Two candidates per edge of S1, in the order of darts_edges(): the two strongest of a DARTS search.
_S1_NORMAL = (
    ("skip_connect", "dil_conv_3x3"),
    ("skip_connect", "dil_conv_5x5"),
    ("skip_connect", "dil_conv_5x5"),
    ("skip_connect", "sep_conv_3x3"),
    ("skip_connect", "dil_conv_3x3"),
    ("max_pool_3x3", "skip_connect"),
    ("skip_connect", "sep_conv_3x3"),
    ("skip_connect", "sep_conv_3x3"),
    ("skip_connect", "dil_conv_3x3"),
    ("skip_connect", "sep_conv_3x3"),
    ("max_pool_3x3", "skip_connect"),
    ("skip_connect", "dil_conv_3x3"),
    ("dil_conv_3x3", "dil_conv_5x5"),
    ("dil_conv_3x3", "dil_conv_5x5"),
)
_S1_REDUCE = (
    ("max_pool_3x3", "avg_pool_3x3"),
    ("max_pool_3x3", "dil_conv_3x3"),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("skip_connect", "dil_conv_5x5"),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("max_pool_3x3", "sep_conv_3x3"),
    ("skip_connect", "dil_conv_3x3"),
    ("skip_connect", "dil_conv_5x5"),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("skip_connect", "dil_conv_5x5"),
    ("skip_connect", "dil_conv_5x5"),
    ("skip_connect", "dil_conv_5x5"),
)


def _darts(
    name: str, normal: tuple[tuple[str, ...], ...], reduce: tuple[tuple[str, ...], ...]
) -> SearchSpace:
    def edges(ops: tuple[tuple[str, ...], ...]) -> tuple[Edge, ...]:
        return tuple(Edge(src, dst, row) for (src, dst), row in zip(darts_edges(), ops, strict=True))

    groups = {"normal": edges(normal), "reduce": edges(reduce)}
    return SearchSpace(name, "darts", groups, incoming=2, exclude_none=True, concatenated=True)


def _same(*ops: str) -> tuple[tuple[str, ...], ...]:
    return (ops,) * len(darts_edges())


NASBENCH201_NODES = 4  # of the cell, its input included
NASBENCH201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_NASBENCH201_EDGES = tuple(
    Edge(src, dst, NASBENCH201_OPS) for dst in range(1, NASBENCH201_NODES) for src in range(dst)
)

SPACES: Mapping[str, SearchSpace] = {
    space.name: space
    for space in (
        _darts("s1", _S1_NORMAL, _S1_REDUCE),
        _darts("s2", _same("skip_connect", "sep_conv_3x3"), _same("skip_connect", "sep_conv_3x3")),
        _darts(
            "s3", _same("none", "skip_connect", "sep_conv_3x3"), _same("none", "skip_connect", "sep_conv_3x3")
        ),
        _darts("s4", _same("noise", "sep_conv_3x3"), _same("noise", "sep_conv_3x3")),
        _darts("s5", _same(*S5_OPS), _same(*S5_OPS)),
        SearchSpace(
            "nasbench201", "nasbench201", {"cell": _NASBENCH201_EDGES}, incoming=None, exclude_none=False
        ),
    )
}


def search_space(name: str, *, exclude_none: bool = False) -> SearchSpace:
    """The space of that name. Raises InvalidInput for an unknown name.

    ``exclude_none`` keeps ``none`` out of genotypes. The spaces of DARTS always keep it out.
    """
    if name not in SPACES:
        raise InvalidInput(f"search space {name!r} is unknown; choose one of {', '.join(SPACES)}")
    space = SPACES[name]
    return replace(space, exclude_none=space.exclude_none or exclude_none)
