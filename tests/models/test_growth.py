"""Growth knows no domain: which candidates pruning keeps, when edits come, and a supernet of another kind that grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.images.spaces import SPACES
from models.search.discretize import discretize
from models.search.growth import AddNode, AddOperation, Growing, Growth, GrowthConfig
from models.search.pruning import count, least, pruned
from models.search.spaces import Edge, SearchSpace, restricted
from models.search.strategies import AlphaConfig, Alternating, detached, sigmoid, softmax
from models.training.optimizers import SGD
from models.training.seeds import generator


def everything(space: SearchSpace) -> dict[str, Tensor]:
    return {group: torch.ones(shape, dtype=torch.bool) for group, shape in space.shapes().items()}


def random_mix(space: SearchSpace, seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    shapes = space.shapes().items()
    return {group: torch.randn(shape, generator=source).softmax(dim=1) for group, shape in shapes}


@pytest.mark.parametrize("name", ["s2", "s3", "s5", "nasbench201"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_pruning_keeps_what_a_genotype_needs(name: str, share: float) -> None:
    space = SPACES[name]
    whole = count(space, everything(space))
    budget = max(int(share * whole), least(space))
    for seed in range(3):
        mix = random_mix(space, seed)
        live = pruned(space, mix, everything(space), budget)
        assert count(space, live) == budget
        kept = {group: torch.where(live[group], rows, 0.0) for group, rows in mix.items()}
        for group, edges in discretize(space, kept).groups.items():
            rows = [(edge.src, edge.dst) for edge in space.groups[group]]
            for src, dst, op in edges:
                row = rows.index((src, dst))
                assert live[group][row, space.groups[group][row].ops.index(op)], (
                    "a pruned candidate was chosen"
                )


def test_pruning_by_hand() -> None:
    """Two edges into one node, of which a genotype keeps one; the second may lose all but ``none``."""
    ops = ("none", "a", "b")
    space = SearchSpace(
        "toy", "toy", {"cell": (Edge(0, 2, ops), Edge(1, 2, ops))}, incoming=1, exclude_none=True
    )
    mix = {"cell": torch.tensor([[0.1, 0.5, 0.4], [0.7, 0.2, 0.1]])}

    def left(budget: int) -> list[list[bool]]:
        return pruned(space, mix, everything(space), budget)["cell"].tolist()

    assert left(4) == [[True, True, True], [True, True, True]]
    assert left(3) == [[True, True, True], [True, True, False]]
    assert left(2) == [[True, True, True], [True, False, False]]
    assert left(1) == [[True, True, False], [True, False, False]]
    assert left(0) == left(1) and least(space) == 1
    all_stay = replace(space, incoming=None, exclude_none=False)
    assert least(all_stay) == 0, "all edges may carry none"
    assert least(replace(space, incoming=2)) == 2


def test_the_beginning_of_a_space() -> None:
    space = SPACES["s5"]
    assert restricted(space, space.shapes()) is space
    small = restricted(space, {"normal": (5, 3), "reduce": (2, 8)})
    assert small.shapes() == {"normal": (5, 3), "reduce": (2, 8)}
    assert small.groups["normal"][4] == Edge(2, 3, space.groups["normal"][4].ops[:3])
    assert [edge.dst for edge in small.groups["reduce"]] == [2, 2]


FUNCTIONS = {"sine": torch.sin, "cosine": torch.cos, "square": torch.square}


class Sum(nn.Module):
    """A supernet without time or cells: on E edges, the mix of functions of its input, each with a weight and a gate."""

    def __init__(self, operations: tuple[str, ...], edges: int = 2):
        super().__init__()
        self.operations, self.edges = operations, edges
        self.weights = nn.ParameterDict(
            {op: nn.Parameter(torch.linspace(0.5, 2, edges)) for op in operations}
        )
        self.gates = nn.Parameter(torch.ones(edges, len(operations)))

    @property
    def space(self) -> SearchSpace:
        edges = tuple(Edge(src, src + 1, self.operations) for src in range(self.edges))
        return SearchSpace("sum", "sum", {"cell": edges}, incoming=None, exclude_none=False)

    def forward(self, x: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        values = [FUNCTIONS[op](x[:, None] * self.weights[op]) for op in self.operations]
        return (torch.stack(values, dim=-1) * self.gates * mix["cell"]).sum(dim=(1, 2))

    def sizes(self) -> dict[str, int]:
        return {"functions": len(self.operations)}

    def grow(self, edit: Growing, generator: torch.Generator) -> None:
        assert isinstance(edit, AddOperation)
        self.operations = (*self.operations, edit.name)
        self.weights[edit.name] = nn.Parameter(torch.rand(self.edges, generator=generator))
        self.gates = nn.Parameter(nn.functional.pad(self.gates, (0, 1)))

    @torch.no_grad()
    def rebalance(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        edges, operations = before["cell"].shape
        self.gates[:, :operations] *= before["cell"] / after["cell"][:edges, :operations]


@pytest.mark.parametrize("relaxation", [softmax, sigmoid])
def test_another_supernet_adds_an_operation(relaxation: object) -> None:
    supernet = Sum(("sine", "cosine"))
    strategy = Alternating(
        supernet.space,
        AlphaConfig(),
        generator(0, "alpha"),
        relaxation=relaxation,  # pyright: ignore[reportArgumentType]
    )
    strategy.alpha["cell"].data = torch.tensor([[1.0, -1.0], [0.3, 0.2]])
    growth = Growth(supernet, GrowthConfig([AddOperation("square")], every=2), generator(0, "growth"))
    optimizer = SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    x = torch.linspace(-1, 1, 9)
    before = supernet(x, detached(strategy.mix())).detach()
    for epoch in range(3):
        assert not growth.finished
        growth.start_epoch(epoch, strategy, optimizer)
        growth.end_epoch(1.0)
    assert growth.finished and supernet.operations == ("sine", "cosine", "square")
    mix = strategy.mix()["cell"].detach()
    torch.testing.assert_close(supernet(x, {"cell": mix}).detach(), before, rtol=0, atol=1e-6)
    if relaxation is softmax:
        torch.testing.assert_close(mix[:, 2], torch.full((2,), 1 / 3))
    assert growth.report(strategy.live()) == {"functions": 3, "operations": 6}
    assert growth.notices() == ["the search added the operation square before epoch 3"]
    assert growth.notices() == []
    optimizer.zero_grad()
    supernet(x, {"cell": mix}).square().sum().backward()
    optimizer.step()
    assert (supernet.gates[:, 2] != 0).all()


@pytest.mark.parametrize(
    ("losses", "fires_after"),
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6], None),
        ([1.0, 0.5, 0.499, 0.498, 0.4], 4),
        ([1.0, 1.2, 1.3], 3),
        ([1.0, 0.5, 0.6, 0.4999], 4),
    ],
)
def test_a_plateau_is_two_epochs_without_an_improvement_of_one_percent(
    losses: list[float], fires_after: int | None
) -> None:
    supernet = Sum(("sine",))
    strategy = Alternating(supernet.space, AlphaConfig(), generator(0, "alpha"))
    growth = Growth(supernet, GrowthConfig([AddOperation("cosine")], patience=2), generator(0, "growth"))
    optimizer = SGD(supernet.parameters(), lr=0.1)
    fired = None
    for epoch, loss in enumerate(losses):
        growth.end_epoch(loss)
        growth.start_epoch(epoch + 1, strategy, optimizer)
        if growth.finished and fired is None:
            fired = epoch + 1
    assert fired == fires_after


def test_turns() -> None:
    edits = [AddNode(), AddOperation("a")]
    assert len(GrowthConfig(edits).turns()) == 2
    assert [len(turn) for turn in GrowthConfig(edits, budget=3).turns()] == [1, 1, 1]
    assert [len(turn) for turn in GrowthConfig(edits, mode="alternating", budget=3).turns()] == [2, 2]
