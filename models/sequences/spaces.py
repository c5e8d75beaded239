"""Search spaces of recurrent cells: which edges a cell has, and which operations may sit on each.

``two_input`` is the backbone of arXiv 2106.07211 (Jie and Gao) as far as its abstract tells: a node combines two sides,
each a mix over earlier nodes and operations, by their mean or their product, so that LSTM and GRU lie in the space.
``one_input`` is the recurrent cell of DARTS (arXiv 1806.09055, section 3.1.2).

Edges are ordered by destination and then by source, and operations keep the order in which they are given, so a space with
fewer nodes or without the last operations is the beginning of the larger one (``models.search.spaces.restricted``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from models.errors import InvalidInput
from models.search.spaces import Edge, SearchSpace

OPERATIONS = ("none", "tanh", "relu", "sigmoid", "identity")
COMBINERS = ("sum", "product")
TWO_INPUT, ONE_INPUT = "two-input", "one-input"


def two_input(nodes: int, operations: Sequence[str] = OPERATIONS) -> SearchSpace:
    """Cells whose nodes have two sides: node 0 is the state, 1 the input, and ``nodes`` are computed, from 2 on.

    Raises InvalidInput for less than one node, or for operations that are unknown, repeated or too few.
    """
    ops = _checked(nodes, operations)
    computed = range(2, 2 + nodes)
    side = tuple(Edge(src, dst, ops) for dst in computed for src in range(dst))
    combiner = tuple(Edge(dst, dst, COMBINERS) for dst in computed)
    groups = {"left": side, "right": side, "combiner": combiner}
    return _space(TWO_INPUT, nodes, ops, groups)


def one_input(nodes: int, operations: Sequence[str] = OPERATIONS) -> SearchSpace:
    """The cell of DARTS: node 0 is made of input and state, and ``nodes`` are computed, from 1 on.

    Raises InvalidInput as ``two_input`` does.
    """
    ops = _checked(nodes, operations)
    edges = tuple(Edge(src, dst, ops) for dst in range(1, 1 + nodes) for src in range(dst))
    return _space(ONE_INPUT, nodes, ops, {"cell": edges})


SPACES: Mapping[str, Callable[[int, Sequence[str]], SearchSpace]] = {
    TWO_INPUT: two_input,
    ONE_INPUT: one_input,
}


def search_space(family: str, nodes: int, operations: Sequence[str] = OPERATIONS) -> SearchSpace:
    """The space of a family. Raises InvalidInput."""
    if family not in SPACES:
        raise InvalidInput(f"search space {family!r} is unknown; choose one of {', '.join(SPACES)}")
    return SPACES[family](nodes, operations)


def named(name: str) -> SearchSpace:
    """The space that has this ``SearchSpace.name``. Raises InvalidInput."""
    family, nodes, operations = (*name.split("/"), "", "")[:3]
    if not nodes.isdecimal():
        raise InvalidInput(f"search space {name!r} is unknown; expected FAMILY/NODES/OPERATION,OPERATION,...")
    return search_space(family, int(nodes), operations.split(","))


def nodes_of(space: SearchSpace) -> int:
    """How many nodes the cells of a space compute."""
    return len({edge.dst for edges in space.groups.values() for edge in edges})


def operations_of(space: SearchSpace) -> tuple[str, ...]:
    """The candidates on the edges between nodes."""
    return next(iter(space.groups.values()))[0].ops


def _space(
    family: str, nodes: int, ops: tuple[str, ...], groups: Mapping[str, tuple[Edge, ...]]
) -> SearchSpace:
    name = f"{family}/{nodes}/{','.join(ops)}"
    return SearchSpace(name, family, groups, incoming=1, exclude_none=True, concatenated=True)


def _checked(nodes: int, operations: Sequence[str]) -> tuple[str, ...]:
    if nodes < 1:
        raise InvalidInput(f"a cell of {nodes} nodes computes nothing; set 1 or more")
    unknown = [op for op in operations if op not in OPERATIONS]
    if unknown:
        raise InvalidInput(f"operation {unknown[0]!r} is unknown; choose from {', '.join(OPERATIONS)}")
    if len(set(operations)) < len(operations):
        raise InvalidInput(f"operations {', '.join(operations)} name one twice; name each once")
    if len(operations) < 2 or set(operations) == {"none"}:
        raise InvalidInput(
            f"operations {', '.join(operations)} leave nothing to choose; name at least two of {', '.join(OPERATIONS)}"
        )
    return tuple(operations)
