from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.plain import TwoPasses
from models.errors import Diverged, InvalidInput
from models.images.benchmark import Benchmark
from models.images.notations import arch_str
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.search.discretize import discretize
from models.search.early_stopping import EigenvalueRise, SkipConnections
from models.search.gradients import Descent, Step
from models.search.landscape import directions
from models.search.objective import BatchObjective
from models.search.program import Found
from models.search.strategies import AlphaConfig, Alternating, Update, sigmoid
from models.training.evaluation import evaluate
from models.training.events import EpochEnd, Event, Notice, State
from models.training.seeds import generator
from tests.models.processes import repeatable
from tests.models.tiny import STRATEGIES, alternating, config, loaders, objectives, search, size, task

pytestmark = pytest.mark.usefixtures("double")
SPACE = "nasbench201"  # the smallest


class Interrupted(Exception):
    pass


def run(name: str, space: str = SPACE, **arguments: Any) -> Found:
    return search(name, space, **arguments)


def copied(state: State) -> State:
    """A copy, as if the state had been written to a file and read back."""

    def copy(value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().clone()
        if isinstance(value, Mapping):
            return {key: copy(inner) for key, inner in value.items()}
        return [copy(inner) for inner in value] if isinstance(value, list | tuple) else value

    return copy(state)  # pyright: ignore[reportReturnType]


def assert_identical(found: Found, expected: Found) -> None:
    assert repeatable(found.history) == repeatable(expected.history)
    assert found.summary == expected.summary
    assert (found.genotype, found.epoch) == (expected.genotype, expected.epoch)
    for mine, others in zip(found.alphas, expected.alphas, strict=True):
        assert all(torch.equal(mine[group], rows) for group, rows in others.items())
    for name, weight in expected.weights.items():
        assert torch.equal(found.weights[name], weight), name


@pytest.mark.parametrize(("name", "space"), [*((name, SPACE) for name in STRATEGIES), ("ms-darts", "s4")])
def test_a_resumed_search_is_the_uninterrupted_one_bit_for_bit(name: str, space: str) -> None:
    """Defect 3: the published code saves nothing and seeds no loader."""
    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            kept.append(copied(event.state()))
            raise Interrupted

    with pytest.raises(Interrupted):
        run(name, space, on_event=interrupt)
    assert_identical(run(name, space, resume=kept[0]), run(name, space))


def test_each_row_scores_the_alpha_and_genotype_of_its_own_epoch() -> None:
    """Defect 2: the published code prints accuracies next to wrong genotypes, and never the last one."""
    found = run("darts", config=config(epochs=3))
    strategy, data = STRATEGIES["darts"](search_space(SPACE), 3), loaders()
    mixes = [strategy.mix(alphas) for alphas in found.alphas]
    genotypes = [discretize(search_space(SPACE), mix) for mix in mixes]
    for row, genotype in zip(found.history, genotypes, strict=True):
        assert row["skip_connects_cell"] == arch_str(genotype).count("skip_connect")
    cells = [genotype.groups["cell"] for genotype in genotypes]
    changes = [
        sum(old != new for old, new in zip(before, after, strict=True)) for before, after in pairwise(cells)
    ]
    assert [row["genotype_changes"] for row in found.history] == [None, *changes]
    assert found.genotype == genotypes[-1] and found.epoch == 3
    supernet = task(SPACE).supernet(channels=2, cells=1)
    supernet.load_state_dict(found.weights)
    last = {group: rows.detach() for group, rows in mixes[-1].items()}
    score = evaluate(supernet, lambda x: supernet(x, last), data.valid(), task(SPACE))
    assert found.history[-1]["valid_loss"] == pytest.approx(score["loss"], abs=1e-12)
    assert found.history[-1]["valid_accuracy"] == score["accuracy"]


class Watched(Alternating):
    """Records the learning rate at which the weights are about to move."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.rates: list[float] = []

    def step(self, step: Step) -> Update:
        self.rates.append(step.descent().learning_rate)
        return super().step(step)


def test_the_rate_reported_is_the_rate_used() -> None:
    """Defect 4: the published scheduler steps before the optimizer."""
    strategy = Watched(search_space(SPACE), AlphaConfig(), generator(0, "alpha"))
    found = search("darts", SPACE, config(epochs=3), strategy=strategy)
    reported = [row["learning_rate"] for row in found.history]
    assert strategy.rates == [rate for rate in reported for _ in range(2)]
    assert reported[0] == 0.025, "the first epoch has the full rate"


def test_frozen_alpha_takes_no_validation_batches_and_later_they_go_on() -> None:
    """Defect 7: the published code starts the validation half anew in every step, even with alpha frozen."""
    positions: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, EpochEnd):
            positions.append(event.state()["program"]["streams"]["architecture"]["position"])

    strategy = Alternating(search_space(SPACE), AlphaConfig(warmup_epochs=1), generator(0, "alpha"))
    search("darts", SPACE, strategy=strategy, data=loaders(images=16), on_event=watch)
    assert positions == [0, 16], "none in the first epoch, four of four images in the second"


@pytest.mark.parametrize("space", ["s5", SPACE])
def test_single_level_needs_one_pass_and_finds_what_two_passes_find(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    output = BatchObjective.output

    def counted(self: BatchObjective, *arguments: Any) -> Any:
        trained.append(1)
        return output(self, *arguments)

    monkeypatch.setattr(BatchObjective, "output", counted)
    one = run("single-level-sigmoid", space)
    assert len(trained) == 4, "two epochs of two steps"
    two = run(
        "single-level-sigmoid",
        space,
        strategy=alternating(search_space(space), 2, estimator=TwoPasses(), relaxation=sigmoid),
    )
    assert len(trained) == 4 + 8
    for mine, others in zip(one.alphas, two.alphas, strict=True):
        assert all(torch.equal(mine[group], rows) for group, rows in others.items())
    # Running batch statistics see each batch once instead of twice.
    learned = [name for name in two.weights if "running" not in name]
    assert learned and all(torch.equal(one.weights[name], two.weights[name]) for name in learned)


@pytest.mark.parametrize("space", ["s1", "s5", SPACE])
def test_columns_that_every_space_has_are_of_all_cells(space: str) -> None:
    """The columns that `dvc plots` draws must not depend on the cell types of the space."""
    groups = search_space(space).groups
    for row in run("darts", space).history:
        skips = [row[f"skip_connects_{group}"] or 0 for group in groups]
        assert row["skip_connects"] == sum(skips)
        entropies = [row[f"entropy_{group}"] or 0.0 for group in groups]
        assert row["entropy"] == pytest.approx(sum(entropies) / len(groups))  # cells have equally many edges


def test_summary_tells_gap_and_eigenvalue() -> None:
    found = run("ms-darts", config=config(curvature_cases=4))
    summary = found.summary
    gap = summary["supernet_accuracy"] - summary["discretized_accuracy"]
    assert summary["discretization_gap"] == pytest.approx(gap)
    assert summary["hessian_residual"] <= 0.01 * abs(summary["hessian_eigenvalue"])
    columns = {
        "entropy",
        "entropy_cell",
        "skip_connects",
        "skip_connects_cell",
        "genotype_changes",
        "movement",
        "effective_sample_size",
    }
    assert columns <= set(found.history[0])
    assert "hessian_eigenvalue" not in found.history[0], "takes time, so only on demand"


def test_measuring_curvature_and_landscape_changes_nothing_else() -> None:
    plain = run("ms-darts", "s4")
    measured = run("ms-darts", "s4", config=config(curvature_cases=4, landscape_points=3))
    assert plain.landscape is None and measured.landscape is not None
    assert plain.summary.items() <= measured.summary.items()
    assert_identical(measured, replace(plain, summary=measured.summary))


def test_the_landscape_is_that_of_the_validation_loss_at_the_alpha_that_was_chosen() -> None:
    rule = EigenvalueRise(window=1, threshold=1e-6, minimum_epochs=0)  # returns to epoch 1 of 2
    settings = config(epochs=9, curvature_cases=4, landscape_points=3)
    found = run("darts", config=settings, early_stopping=rule)
    assert (len(found.history), found.epoch) == (2, 1) and found.landscape is not None
    tiny = task(SPACE)
    supernet = tiny.supernet(channels=2, cells=size(SPACE).cells)
    supernet.load_state_dict(found.weights)
    x, target = next(iter(loaders().valid()))
    objective = BatchObjective(tiny, supernet, x[:4], target[:4])
    first, _ = directions(found.alphas[0], seed=0)
    for row, along in enumerate((-1.0, 0.0, 1.0)):
        alphas = {group: alpha + along * first[group] for group, alpha in found.alphas[0].items()}
        mix = {group: torch.softmax(alpha, dim=-1) for group, alpha in alphas.items()}
        expected = objective.probe(dict(supernet.named_parameters()), [mix])
        assert float(found.landscape.losses[row, 1]) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", STRATEGIES)
def test_any_strategy_stops_early_and_goes_back_to_an_earlier_alpha(name: str) -> None:
    rule = EigenvalueRise(window=1, threshold=1e-6, minimum_epochs=0)
    found = run(name, config=config(epochs=9, curvature_cases=4), early_stopping=rule)
    assert (len(found.history), found.epoch) == (2, 1)
    assert all("hessian_eigenvalue" in row for row in found.history)
    mix = STRATEGIES[name](search_space(SPACE), 2).mix(found.alphas[0])
    assert found.genotype == discretize(search_space(SPACE), mix)


def test_a_search_interrupted_where_it_stops_early_stays_stopped() -> None:
    rule, kept = SkipConnections(limit=-1, group="cell", minimum_epochs=0), []

    def keep(event: Event) -> None:
        if isinstance(event, EpochEnd):
            kept.append(copied(event.state()))

    stopped = run("darts", early_stopping=rule, on_event=keep)
    assert len(stopped.history) == 1
    assert_identical(run("darts", early_stopping=rule, resume=kept[0]), stopped)


def test_stopping_on_the_eigenvalue_needs_it_measured() -> None:
    with pytest.raises(InvalidInput, match="curvature_images"):
        run("darts", early_stopping=EigenvalueRise())


def test_a_table_adds_accuracy_and_rank_of_every_genotype() -> None:
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

    class Table(dict[str, float]):
        def __contains__(self, cell: object) -> bool:
            return True

        def __getitem__(self, cell: str) -> float:
            return float(cell.count("nor_conv_3x3"))

    table = Benchmark(Table({f"cell {count}": float(count) for count in range(7)}))
    found = run("darts", benchmark=table)
    for row, alphas in zip(found.history, found.alphas, strict=True):
        convolutions = sum(ops[column] == "nor_conv_3x3" for column in alphas["cell"].argmax(dim=1).tolist())
        assert row["tabulated_accuracy"] == convolutions
        assert row["tabulated_rank"] == 7 - convolutions


def test_a_flat_kernel_is_told_to_the_listener_once() -> None:
    events: list[Event] = []
    run("ms-darts", on_event=events.append)
    notices = [event for event in events if isinstance(event, Notice)]
    assert len(notices) == 1 and "search.mean_shift.bandwidth" in notices[0].message


def test_a_loss_that_is_not_finite_ends_the_search() -> None:
    with pytest.raises(Diverged, match="epoch 1"):
        run("darts", config=config(learning_rate=1e300))


@pytest.mark.parametrize("space", ["s1", "s5", "nasbench201"])
def test_the_network_holds_no_architecture_parameters_and_takes_any_size(space: str) -> None:
    """Defect 8: hidden alpha, ten classes, 32 pixels, even sides. Here: 7 classes, 1 channel, 9x11 pixels."""
    free = ImageTask(search_space(space), (9, 11, 1), 7, seed=0)
    supernet = free.supernet(channels=2, cells=3 if space != SPACE else 1)
    strategy = Alternating(search_space(space), AlphaConfig(warmup_epochs=0), generator(0, "alpha"))
    shapes = {tuple(rows.shape) for rows in strategy.alpha.values()}
    assert not shapes & {tuple(weight.shape) for weight in supernet.parameters()}
    assert set(strategy.state_dict()["alpha"]) == set(search_space(space).groups)
    objective = BatchObjective(free, supernet, torch.randn(4, 1, 9, 11), torch.arange(4))
    params, before = dict(supernet.named_parameters()), strategy.alphas()
    strategy.start_epoch(0)
    strategy.step(Step(params, objective, objective, lambda: Descent(0.1, 0.9, 0.0, {})))
    assert all((strategy.alphas()[group] != rows).any() for group, rows in before.items())


def test_a_thinned_batch_is_the_same_cases_whether_processes_share_it_or_not() -> None:
    _, train, _, params = objectives(SPACE)
    mixes = [{"cell": torch.full((6, 5), 0.2)}]
    parts = zip(train.x.chunk(2), train.target.chunk(2), strict=True)
    losses = [
        BatchObjective(train.criterion, train.module, *part).thinned(2).probe(params, mixes) for part in parts
    ]
    torch.testing.assert_close(train.thinned(2).probe(params, mixes), torch.stack(losses).mean(dim=0))
    assert len(train.thinned(2).target) == len(train.target) / 2


def test_perturbed_losses_are_one_pass_and_leave_the_network_as_it_was() -> None:
    """Defect 10: the published code makes a pass for each perturbed loss."""
    _, train, _, params = objectives(SPACE)
    train(params, {"cell": torch.full((6, 5), 0.2)})
    source = torch.Generator().manual_seed(0)
    mixes = [{"cell": torch.softmax(torch.randn((6, 5), generator=source), dim=-1)} for _ in range(3)]
    calls, before = [], copied(train.module.state_dict())
    train.module.register_forward_hook(lambda *_: calls.append(1))
    losses = train.probe(params, mixes)
    assert len(calls) == 1
    assert all(torch.equal(value, before[name]) for name, value in train.module.state_dict().items())
    each = torch.stack([train.evaluated(params, mix) for mix in mixes])
    torch.testing.assert_close(losses, each, rtol=0, atol=1e-12)
    assert train.module.training and not losses.requires_grad and each.requires_grad
