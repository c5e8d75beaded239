"""The fastest architecture, and the next best ones, against all architectures of small spaces."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from models.images.spaces import search_space
from models.search.discretize import discretize, one_hot
from models.search.genotype import Genotype
from models.search.latency import cells as module
from models.search.latency.cells import Cells, best_first, fastest, next_best, slots_of
from models.search.latency.encoding import Encoding
from models.search.random_cells import edges_of, number_of_cells
from models.search.spaces import Edge, SearchSpace


def predict(codes: Tensor) -> Tensor:
    """Not a sum: operations, and what the first columns make of each other."""
    costs = torch.rand(codes.shape[1], generator=torch.Generator().manual_seed(1))
    return 1 + codes @ costs + codes[:, 0] * codes[:, 9] + 0.5 * codes[:, 3] * codes[:, 12]


def a_mix(space: SearchSpace, seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        group: torch.softmax(2 * torch.randn(shape, generator=source), dim=-1)
        for group, shape in space.shapes().items()
    }


def preference(space: SearchSpace, mix: dict[str, Tensor], genotype: Genotype) -> float:
    total = 0.0
    for group, edges in space.groups.items():
        chosen = {(src, dst): op for src, dst, op in genotype.groups[group]}
        for row, edge in enumerate(edges):
            if (edge.src, edge.dst) in chosen:
                op = chosen[edge.src, edge.dst]
                total += float(mix[group][row, edge.ops.index(op)].double().log())
    return total


TOP_2 = SearchSpace(  # three nodes that keep two edges each: 4 x 12 x 24 cells
    "top 2",
    "darts",
    {"g": tuple(Edge(src, dst, ("a", "b")) for dst in range(2, 5) for src in range(dst))},
    2,
    True,
    concatenated=True,
)
ALL_EDGES = SearchSpace(  # 3^6 cells, some with edges that lead to nothing
    "all edges",
    "nasbench201",
    {"g": tuple(Edge(src, dst, ("none", "a", "b")) for dst in range(1, 4) for src in range(dst))},
    None,
    False,
)


def leads_through(genotype: Genotype) -> bool:
    reached = {0}
    for src, dst, op in sorted(genotype.groups["g"], key=lambda edge: edge[1]):
        if src in reached and op != "none":
            reached.add(dst)
    return 3 in reached


def every(space: SearchSpace) -> list[Genotype]:
    (group,) = space.groups
    parts = itertools.product(*(slot.choices for slot in slots_of(space)))
    return [Genotype(space.family, {group: tuple(itertools.chain(*some))}) for some in parts]


@pytest.mark.parametrize("name", ["s1", "s5", "nasbench201"])
def test_the_choices_of_the_slots_make_the_whole_space(name: str) -> None:
    space = search_space(name)
    assert Cells(space, predict).count == number_of_cells(space)
    for slot in slots_of(space):
        assert len(set(slot.choices)) == len(slot.choices)


def test_sums_come_in_descending_order_and_each_once() -> None:
    source = torch.Generator().manual_seed(0)
    values = [torch.randn(count, generator=source) for count in (4, 3, 5)]
    found = list(best_first(values))
    sums = [float(sum(value[place] for value, place in zip(values, chosen, strict=True))) for chosen in found]
    assert len(set(found)) == 4 * 3 * 5
    assert sums == sorted(sums, reverse=True)


@pytest.mark.parametrize("name", ["s1", "s5", "nasbench201"])
def test_without_a_budget_the_next_best_is_what_discretization_takes(name: str) -> None:
    space = search_space(name)
    connects = Encoding(space).connects
    mixes = [a_mix(space, seed) for seed in range(5)]
    taken = [
        mix for mix in mixes if bool(connects(Encoding(space).table(one_hot(space, discretize(space, mix)))))
    ]
    assert taken
    for mix in taken:
        (first,) = itertools.islice(next_best(space, mix, predict, 1e9), 1)
        assert edges_of(first) == edges_of(discretize(space, mix))


def test_those_within_a_budget_come_by_preference_and_none_is_missed() -> None:
    space = ALL_EDGES
    mix, encoding = a_mix(space), Encoding(space)
    genotypes = [genotype for genotype in every(space) if leads_through(genotype)]
    assert 300 < len(genotypes) < number_of_cells(space)
    ms = predict(encoding.encode_all(genotypes))
    budget = float(ms.quantile(0.02))
    within = [genotype for genotype, time in zip(genotypes, ms.tolist(), strict=True) if time <= budget]
    expected = sorted((preference(space, mix, genotype) for genotype in within), reverse=True)
    found = list(next_best(space, mix, predict, budget))
    assert [preference(space, mix, genotype) for genotype in found] == pytest.approx(expected)
    rest = list(next_best(space, mix, predict, budget, exclude=found[:3]))
    assert rest == found[3:]
    assert fastest(space, predict) == pytest.approx(float(ms.min()))


def test_far_from_the_mix_the_trades_are_nearly_as_good_as_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a space that the first places do not cover, against all of it."""
    space = TOP_2
    genotypes = every(space)
    ms = predict(Encoding(space).encode_all(genotypes))
    mix, budget = a_mix(space), float(ms.quantile(0.01))
    exact = list(next_best(space, mix, predict, budget, limit=len(genotypes)))
    found = list(next_best(space, mix, predict, budget, limit=10))
    assert found and {edges_of(genotype) for genotype in found} <= {edges_of(genotype) for genotype in exact}
    preferences = [preference(space, mix, genotype) for genotype in found]
    assert preferences == sorted(preferences, reverse=True)
    rank = [edges_of(genotype) for genotype in exact].index(edges_of(found[0]))
    assert rank < 5, f"of {len(exact)}"
    assert list(next_best(space, mix, predict, 0.5, limit=10)) == [], "nothing is that fast"
    monkeypatch.setattr(module, "ALL", 10)
    assert fastest(space, predict) == pytest.approx(float(ms.min()))


def test_the_fastest_is_exact_where_latency_is_a_sum() -> None:
    space = search_space("s5")
    encoding = Encoding(space)
    costs = torch.rand(encoding.size, generator=torch.Generator().manual_seed(2))
    lowest = 0.0
    for slot in slots_of(space):
        alone = []
        for choice in slot.choices:
            groups = {group: choice if group == slot.group else () for group in space.groups}
            alone.append(float(encoding.encode(Genotype("darts", groups)) @ costs))
        lowest += min(alone)
    assert fastest(space, lambda codes: codes @ costs) == pytest.approx(lowest, rel=1e-5)
