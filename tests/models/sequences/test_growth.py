"""What a search that grows keeps: the function, the optimizers' state, and, when it is interrupted, every bit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.discretize import discretize
from models.search.early_stopping import SkipConnections
from models.search.growth import AddNode, AddOperation, Growing, Growth, GrowthConfig, Prune, Widen
from models.search.spaces import SearchSpace, restricted, shapes_of
from models.search.strategies import Alternating, detached
from models.sequences.spaces import SPACES, search_space
from models.sequences.supernet import SequenceSupernet
from models.training.events import Notice
from models.training.loop import run
from models.training.optimizers import SGD, Adam
from models.training.seeds import generator
from tests.models.sequences.growing import MODES, growing, uninterrupted
from tests.models.sequences.tiny import KINDS, PENALTIES, SHAPE, STRATEGIES, TOKENS, config, program, task_of

HIDDEN, CASES = 4, 20
EDITS: dict[str, Growing] = {"node": AddNode(), "operation": AddOperation("sigmoid"), "width": Widen(11)}
TYPES = {torch.float32: 1e-6, torch.float64: 1e-14}


def start(family: str) -> SearchSpace:
    return search_space(family, 2, ("none", "tanh", "identity"))


def random_state(
    family: str, kind: str, dtype: torch.dtype, strategy: str
) -> tuple[SequenceSupernet, Alternating]:
    """A supernet and architecture parameters that a search may have come to: nothing as it was initialized."""
    supernet = task_of(kind, start(family)).supernet(HIDDEN).to(dtype)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    made = STRATEGIES[strategy](start(family), 3)
    for alpha in made.alpha.values():
        alpha.data = torch.randn(alpha.shape, dtype=dtype)
    made.temperature = 0.6
    return supernet, made


def inputs(kind: str, dtype: torch.dtype) -> Tensor:
    source = torch.Generator().manual_seed(2)
    if kind == "series":
        return torch.randn(CASES, SHAPE.lookback, SHAPE.variables, generator=source, dtype=dtype)
    return torch.randint(TOKENS, (CASES, SHAPE.lookback), generator=source)


def grown(supernet: SequenceSupernet, strategy: Alternating, edits: Sequence[Growing]) -> None:
    growth = Growth(supernet, GrowthConfig(edits, every=1), generator(0, "growth"))
    optimizer = SGD(supernet.parameters(), lr=0.1)
    for epoch in range(len(edits)):
        growth.end_epoch(1.0)
        growth.start_epoch(epoch + 1, strategy, optimizer)
    assert growth.finished


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("strategy", ["darts", "single-level-sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("edits", [*([name] for name in EDITS), [*EDITS, "node", "width"]], ids="+".join)
def test_the_function_stays_what_it_was(
    edits: list[str], family: str, kind: str, strategy: str, dtype: torch.dtype
) -> None:
    supernet, made = random_state(family, kind, dtype, strategy)
    x = inputs(kind, dtype)
    before = supernet(x, detached(made.mix())).detach()
    several = [EDITS[name] for name in edits[:3]] + [AddNode(), Widen(12)][: len(edits) - 3]
    sizes = supernet.sizes()
    grown(supernet, made, several)
    after = supernet(x, detached(made.mix())).detach()
    assert supernet.sizes() != sizes or "operation" in edits

    assert float((after - before).abs().max()) <= TYPES[dtype]
    for group, rows in made.mix().items():
        assert rows.shape == supernet.space.shapes()[group]


def test_new_parts_learn() -> None:
    """After a few steps, nothing that growth has added is what it was."""
    supernet, made = random_state("two-input", "series", torch.float64, "darts")
    grown(supernet, made, [AddNode(), AddOperation("sigmoid"), Widen(6)])
    x, optimizer = inputs("series", torch.float64), SGD(supernet.parameters(), lr=1e-3)
    mix = detached(made.mix())
    at_first = {name: weight.detach().clone() for name, weight in supernet.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        supernet(x, mix).square().mean().backward()
        optimizer.step()
    cell = supernet.cell
    assert cell.gamma[-1] != 0 and cell.gates[:, :, -1].detach().abs().min() > 0
    name = "network.cell.weight.2"  # of the edge from node 2 to the new node
    assert (dict(supernet.named_parameters())[name] != at_first[name]).all()
    copies = supernet.network.head.weight.detach()[:, HIDDEN:]
    assert (copies != at_first["network.head.weight"][:, HIDDEN:]).all()


def test_copies_of_a_unit_become_different() -> None:
    supernet, made = random_state("two-input", "series", torch.float64, "darts")
    grown(supernet, made, [Widen(2 * HIDDEN)])
    x, mix = inputs("series", torch.float64), detached(made.mix())

    def copies_differ() -> float:
        """The largest difference between units that are copies, over what they compute."""
        outputs, _ = supernet.cell(x, None, mix)
        units = outputs[:, -1].T
        pairs = [
            (units[one] - units[other]).abs().max()
            for one in range(HIDDEN)
            for other in range(HIDDEN, 2 * HIDDEN)
        ]
        return float(min(pairs).detach())

    assert copies_differ() < 1e-12
    optimizer = SGD(supernet.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        supernet(x, mix).square().mean().backward()
        optimizer.step()
    assert copies_differ() > 1e-6


@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_the_optimizers_go_on(kind: type[SGD] | type[Adam], family: str) -> None:
    supernet, made = random_state(family, "series", torch.float32, "darts")
    arguments = {"momentum": 0.9} if kind is SGD else {}
    optimizer = kind(supernet.parameters(), lr=0.01, **arguments)  # pyright: ignore[reportArgumentType]
    mix = made.mix()
    loss = supernet(inputs("series", torch.float32), mix).square().mean()
    loss.backward()
    optimizer.step()
    made.optimizer.step()

    def kept() -> dict[str, dict[str, Tensor]]:
        named = [*supernet.named_parameters(), *made.alpha.items()]
        states = {**optimizer.state, **made.optimizer.state}
        return {
            name: {key: value.clone() for key, value in states[weight].items() if isinstance(value, Tensor)}
            for name, weight in named
            if weight in states
        }

    before = kept()
    growth = Growth(
        supernet,
        GrowthConfig([AddNode(), AddOperation("sigmoid"), Widen(7)], every=1),
        generator(0, "growth"),
    )
    for epoch in range(3):
        growth.end_epoch(1.0)
        growth.start_epoch(epoch + 1, made, optimizer)
    after = kept()
    (group,) = optimizer.param_groups
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in supernet.parameters()]
    assert set(after) == set(before), "new parameters have no state yet"
    enlarged = 0
    for name, states in before.items():
        for key, value in states.items():
            block = tuple(slice(size) for size in value.shape)
            assert torch.equal(after[name][key][block], value), (name, key)
            outside = after[name][key].clone()
            outside[block] = float("nan")
            rest = outside[~outside.isnan()]
            enlarged += len(rest)
            if key in ("momentum_buffer", "exp_avg"):
                assert not rest.any()
            if key == "exp_avg_sq" and len(rest):
                assert rest.min() > 0
    assert enlarged
    optimizer.zero_grad()
    supernet(inputs("series", torch.float32), made.mix()).square().mean().backward()
    optimizer.step()
    made.optimizer.step()


def test_adams_first_steps_in_a_new_part_are_not_larger_than_elsewhere() -> None:
    made = STRATEGIES["darts"](start("one-input"), 3)
    for _ in range(200):
        for alpha in made.alpha.values():
            alpha.grad = torch.randn(alpha.shape, generator=made.generator)
        made.optimizer.step()
    made.grow(search_space("one-input", 3, ("none", "tanh", "identity")).shapes())
    before = made.alpha["cell"].detach().clone()
    made.alpha["cell"].grad = torch.ones_like(before)
    made.optimizer.step()
    moved = (made.alpha["cell"].detach() - before).abs()
    assert moved[3:].max() < 2 * 0.1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_grows(strategy: str, mode: str) -> None:
    found, heard = uninterrupted(strategy, mode)
    rows = found.history
    told = [event.message for event in heard if isinstance(event, Notice)]
    columns = {name: [row[name] for row in rows] for name in ("nodes", "hidden", "operations")}
    if mode == "grow then prune":
        assert columns["nodes"] == [2, 3, 3, 3, 3, 3]
        assert columns["hidden"] == [4, 4, 4, 6, 6, 6]
        # Two sides with 5 and then 9 edges, two and then three operations each, and the two combiners of each node.
        assert columns["operations"] == [24, 42, 60, 60, 18, 18]
        assert told[-1] == "the search pruned to 18 operations before epoch 5"
    elif mode == "in turn":
        assert columns["nodes"] == [2, 2, 2, 2, 3, 3]
        assert columns["operations"] == [24, 24, 16, 16, 16, 16]
        assert sum("added" in message for message in told) == 2
    else:
        assert columns["nodes"][0] == 2
    for row, alphas in zip(rows, found.alphas, strict=True):
        assert int(sum(torch.isfinite(alpha).sum() for alpha in alphas.values())) >= (row["operations"] or 0)
        assert {group: tuple(alpha.shape) for group, alpha in alphas.items()}.keys() == {
            "left",
            "right",
            "combiner",
        }


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("strategy", ["ms-darts", "sdarts-adv", "single-level-sigmoid"])
def test_what_is_measured_and_penalized_of_pruned_cells_is_finite(strategy: str, penalty: str) -> None:
    """Pruned candidates have architecture parameters of minus infinity."""
    found = run(growing(strategy, "in turn", curvature=True, penalty=penalty))
    assert not all(alpha.isfinite().all() for alpha in found.alphas[-1].values())
    assert not any(alpha.isnan().any() for alpha in found.alphas[-1].values())
    for row in found.history:
        assert all(math.isfinite(value) for value in row.values() if value is not None), row
    assert all(map(math.isfinite, found.summary.values())), found.summary
    assert found.landscape is not None and found.landscape.losses.isfinite().all()
    assert all(weight.isfinite().all() for weight in found.weights.values())


def test_pruned_candidates_weigh_nothing_and_are_not_chosen() -> None:
    space = search_space("two-input", 3, ("none", "tanh", "identity", "sigmoid"))
    for strategy in STRATEGIES:
        search = growing(strategy, "grow then prune")
        made, seen = search.strategy, []
        step = made.step
        made.step = lambda at, step=step, seen=seen: seen.append(step(at)) or seen[-1]  # pyright: ignore[reportAttributeAccessIssue]
        found = run(search)
        live = made.live()
        assert sum(int(mask.sum()) for mask in live.values()) == 18 + 2 * 9
        for update in seen[-4:]:
            for group, rows in update.mix.items():
                assert not rows[~live[group]].any(), strategy
        mix = made.mix({group: rows.clone() for group, rows in found.alphas[-1].items()})
        genotype = discretize(restricted(space, shapes_of(mix)), mix)
        assert genotype == found.genotype
        for group, edges in genotype.groups.items():
            rows = [(edge.src, edge.dst) for edge in space.groups[group]]
            for src, dst, op in edges:
                row = rows.index((src, dst))
                assert live[group][row, space.groups[group][row].ops.index(op)]


def test_early_stopping_waits_for_the_last_structure() -> None:
    """The rule would stop after the first epoch, and at the fewest skip connections of all epochs, which is anywhere."""
    rule = SkipConnections(limit=-1, group="left", minimum_epochs=1)
    found = run(growing("darts", "grow then prune", early_stopping=rule))
    assert len(found.history) == 6 and found.epoch == 6, (
        "pruned in the fifth epoch, and stopped after one more"
    )
    assert {group: rows.shape for group, rows in found.alphas[found.epoch - 1].items()} == {
        "left": (9, 4),
        "right": (9, 4),
        "combiner": (3, 2),
    }


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        (
            GrowthConfig([AddNode()], every=6),
            r"1 times, every 6 epochs, which takes more than search.epochs \(6\)",
        ),
        (GrowthConfig([AddNode()], every=0), "set 1 or more"),
        (GrowthConfig([AddNode()], patience=0), "set 1 or more"),
        (GrowthConfig([AddNode()], mode="alternating"), "needs a budget"),
        (GrowthConfig([AddNode()], every=2, budget=8), "budget is 8, but the cells need 9"),
    ],
)
def test_growth_that_cannot_be_is_refused(growth: GrowthConfig, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        program("darts", config=config(epochs=6), nodes=3, growth=growth)


def test_edits_that_cannot_be_are_refused() -> None:
    supernet, _ = random_state("two-input", "series", torch.float32, "darts")
    for edit, message in (
        (Widen(HIDDEN), "cannot grow to 4; set more than 4"),
        (AddOperation("gelu"), "cannot add the operation 'gelu'"),
        (AddOperation("none"), "cannot add the operation 'none'"),
        (AddOperation("tanh"), "in the cell already"),
    ):
        with pytest.raises(InvalidInput, match=message):
            supernet.grow(edit, generator(0, "growth"))


def test_what_edits_are_called() -> None:
    assert [str(edit) for edit in (AddNode(), AddOperation("relu"), Widen(8), Prune(3))] == [
        "added a node",
        "added the operation relu",
        "widened to 8 units",
        "pruned to 3 operations",
    ]
