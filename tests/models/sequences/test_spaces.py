"""Spaces of recurrent cells, and genotype.json."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from models.errors import InvalidInput
from models.search.discretize import discretize, one_hot
from models.search.random_cells import number_of_cells, random_cell
from models.search.spaces import SearchSpace
from models.sequences.genotype import from_json, to_json
from models.sequences.spaces import (
    OPERATIONS,
    SPACES,
    named,
    nodes_of,
    one_input,
    operations_of,
    search_space,
    two_input,
)


def test_sizes() -> None:
    assert two_input(4).shapes() == {"left": (14, 5), "right": (14, 5), "combiner": (4, 2)}
    assert one_input(8).shapes() == {"cell": (36, 5)}
    # Per node: for each side one of the earlier nodes and one of four operations, and one of two combiners.
    assert number_of_cells(two_input(2)) == (8 * 8 * 2) * (12 * 12 * 2)
    assert number_of_cells(one_input(3)) == 4 * 8 * 12


@pytest.mark.parametrize("family", SPACES)
def test_a_smaller_space_is_the_beginning_of_a_larger_one(family: str) -> None:
    large = search_space(family, 4, ("none", "tanh", "identity", "relu"))
    small = search_space(family, 2, ("none", "tanh"))
    assert (nodes_of(small), operations_of(small)) == (2, ("none", "tanh"))
    for group, edges in small.groups.items():
        for ours, theirs in zip(edges, large.groups[group], strict=False):
            assert (ours.src, ours.dst) == (theirs.src, theirs.dst)
            assert ours.ops == theirs.ops[: len(ours.ops)]


@pytest.mark.parametrize(
    "space", [two_input(3), one_input(3, ("tanh", "relu"))], ids=lambda space: space.family
)
def test_genotypes_survive_their_notation(space: SearchSpace) -> None:
    source = torch.Generator().manual_seed(0)
    assert named(space.name) == space
    for _ in range(20):
        genotype = random_cell(space, source)
        assert from_json(json.loads(json.dumps(to_json(genotype)))) == genotype
        assert discretize(space, one_hot(space, genotype)) == genotype


def test_notation() -> None:
    content = {
        "space": "two-input",
        "nodes": [
            {"left": ["sigmoid", 1], "right": ["identity", 0], "combiner": "product"},
            {"left": ["tanh", 2], "right": ["relu", 1], "combiner": "sum"},
        ],
    }
    genotype = from_json(content)
    assert genotype.groups == {
        "left": ((1, 2, "sigmoid"), (2, 3, "tanh")),
        "right": ((0, 2, "identity"), (1, 3, "relu")),
        "combiner": ((2, 2, "product"), (3, 3, "sum")),
    }
    assert to_json(genotype) == content
    assert from_json({"space": "one-input", "nodes": [["tanh", 0], ["relu", 1]]}).groups == {
        "cell": ((0, 1, "tanh"), (1, 2, "relu"))
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"space": "darts", "nodes": []}, "space 'darts' is unknown; expected 'two-input' or 'one-input'"),
        ({"space": ["two-input"]}, "space .* is unknown"),
        ({"space": "one-input"}, "nodes is None; expected a list"),
        ({"space": "one-input", "nodes": []}, "nodes is \\[\\]"),
        (
            {"space": "one-input", "nodes": [["tanh", 1]]},
            "node 1 is .*; expected an operation .* from 0 to 0",
        ),
        ({"space": "one-input", "nodes": [["none", 0]]}, "expected an operation"),
        ({"space": "one-input", "nodes": [["tanh", True]]}, "expected an operation"),
        ({"space": "one-input", "nodes": ["tanh"]}, "expected an operation"),
        ({"space": "two-input", "nodes": [["tanh", 1]]}, "expected an object with left, right and combiner"),
        (
            {"space": "two-input", "nodes": [{"left": ["tanh", 1], "right": ["tanh", 2], "combiner": "sum"}]},
            "node 2, right is .* from 0 to 1",
        ),
        (
            {"space": "two-input", "nodes": [{"left": ["tanh", 1], "right": ["tanh", 1], "combiner": "max"}]},
            "combiner is 'max'; expected one of sum, product",
        ),
    ],
)
def test_what_is_no_cell_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_json(content)


@pytest.mark.parametrize(
    ("nodes", "operations", "message"),
    [
        (0, OPERATIONS, "set 1 or more"),
        (2, ("none", "gelu"), "'gelu' is unknown"),
        (2, ("tanh", "tanh"), "name each once"),
        (2, ("tanh",), "name at least two"),
        (2, (), "name at least two"),
    ],
)
def test_spaces_without_a_meaning_are_refused(nodes: int, operations: tuple[str, ...], message: str) -> None:
    for family in SPACES:
        with pytest.raises(InvalidInput, match=message):
            search_space(family, nodes, operations)
    with pytest.raises(InvalidInput, match="unknown"):
        search_space("three-input", 2)
    with pytest.raises(InvalidInput, match="FAMILY/NODES"):
        named("two-input")
