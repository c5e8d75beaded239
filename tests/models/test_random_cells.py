"""Random cells: uniform over what discretization can yield, without repetition, and the same every time."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from models.images.genotype import from_json, to_json
from models.images.spaces import SPACES, search_space
from models.search.discretize import discretize, one_hot
from models.search.random_cells import edges_of, number_of_cells, random_cell, random_cells
from models.search.spaces import Edge, SearchSpace
from models.training.seeds import generator

# Three edges into node 3, of which two stay; their numbers of candidates differ.
UNEVEN = SearchSpace(
    "uneven",
    "uneven",
    {"cell": (Edge(0, 3, ("none", "a")), Edge(1, 3, ("none", "a", "b")), Edge(2, 3, ("a", "b", "c")))},
    incoming=2,
    exclude_none=True,
)


def cells_of_uneven() -> set[frozenset[tuple[int, int, str]]]:
    allowed = {0: "a", 1: "ab", 2: "abc"}
    return {
        frozenset(((one, 3, op), (two, 3, other)))
        for one, two in itertools.combinations(allowed, 2)
        for op in allowed[one]
        for other in allowed[two]
    }


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("exclude_none", [False, True])
def test_discretization_can_yield_every_random_cell(name: str, exclude_none: bool) -> None:
    space = search_space(name, exclude_none=exclude_none)
    source = generator(0, "test")
    for _ in range(20):
        genotype = random_cell(space, source)
        assert from_json(to_json(genotype)) == genotype
        assert edges_of(discretize(space, one_hot(space, genotype))) == edges_of(genotype)
        ops = [op for edges in genotype.groups.values() for _, _, op in edges]
        assert "none" not in ops or not space.exclude_none


def test_the_numbers_of_cells_are_the_published_ones() -> None:
    nodes = 1 * 3 * 6 * 10  # pairs of inputs of the four nodes
    assert number_of_cells(search_space("s5")) == (nodes * 7**8) ** 2
    assert number_of_cells(search_space("s2")) == (nodes * 2**8) ** 2
    assert number_of_cells(search_space("s3")) == (nodes * 2**8) ** 2
    assert number_of_cells(search_space("nasbench201")) == 15_625
    assert number_of_cells(search_space("nasbench201", exclude_none=True)) == 4**6
    assert number_of_cells(UNEVEN) == len(cells_of_uneven()) == 1 * 2 + 1 * 3 + 2 * 3


def test_all_cells_are_equally_likely() -> None:
    source, draws = generator(0, "test"), 5500
    found = Counter(frozenset(random_cell(UNEVEN, source).groups["cell"]) for _ in range(draws))
    assert set(found) == cells_of_uneven()
    assert chisquare(list(found.values())).pvalue > 0.001


def test_cells_come_once_in_the_same_order_and_end_with_the_space() -> None:
    whole = list(random_cells(UNEVEN, generator(3, "test")))
    assert {frozenset(genotype.groups["cell"]) for genotype in whole} == cells_of_uneven()
    assert len(whole) == len(cells_of_uneven())
    again = list(itertools.islice(random_cells(UNEVEN, generator(3, "test")), 4))
    assert again == whole[:4]


def test_an_excluded_cell_does_not_come_whatever_the_order_of_its_edges() -> None:
    found = random_cell(UNEVEN, generator(0, "test"))
    turned = replace(found, groups={"cell": found.groups["cell"][::-1]})
    others = list(random_cells(UNEVEN, torch.Generator().manual_seed(1), [turned]))
    assert len(others) == len(cells_of_uneven()) - 1
    assert edges_of(found) not in map(edges_of, others)
