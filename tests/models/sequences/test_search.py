"""Every strategy of the family, with every penalty, searches recurrent cells in both spaces, for series and text."""

from __future__ import annotations

import math

import pytest
import torch

from models.errors import InvalidInput
from models.search.gradients import descent_of
from models.search.growth import AddOperation, GrowthConfig
from models.search.objective import BatchObjective
from models.sequences.genotype import from_json, to_json
from models.sequences.search import start_of
from models.sequences.spaces import SPACES, nodes_of, search_space
from models.sequences.task import SeriesCriterion, TextCriterion
from tests.models.sequences.tiny import (
    KINDS,
    PENALTIES,
    STRATEGIES,
    config,
    loaders,
    program,
    search,
    task_of,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_searches(strategy: str, family: str, kind: str) -> None:
    found = search(strategy, family, kind, config(curvature_cases=4, landscape_points=3))
    assert from_json(to_json(found.genotype)) == found.genotype
    metric = task_of(kind, search_space(family, 2)).metric
    for row in found.history:
        assert all(
            math.isfinite(row[f"{part}_{name}"] or math.nan)
            for part in ("train", "valid")
            for name in ("loss", metric)
        )
    assert math.isfinite(found.summary["hessian_eigenvalue"]) and found.landscape is not None
    gap = found.summary[f"discretized_{metric}"] - found.summary[f"supernet_{metric}"]
    assert found.summary["discretization_gap"] == pytest.approx(gap)
    first, last = found.alphas[0], found.alphas[-1]
    assert all(not torch.equal(first[group], rows) for group, rows in last.items())


@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_moves_alpha(penalty: str, family: str) -> None:
    plain = search("ms-darts", family)
    found = search("ms-darts", family, penalty=penalty)
    assert found.history[-1]["penalty"]
    assert any(not torch.equal(found.alphas[-1][group], rows) for group, rows in plain.alphas[-1].items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_learns(kind: str) -> None:
    found = search("darts", "two-input", kind, config(epochs=40, learning_rate=0.3))
    first, last = found.history[0], found.history[-1]
    assert (last["train_loss"] or 9.0) < 0.8 * (first["train_loss"] or 0.0)


@pytest.mark.parametrize("strategy", ["darts", "darts-2nd"])
def test_the_weights_may_train_by_adam(strategy: str) -> None:
    """Its first step moves every weight with a gradient by the learning rate; what 2nd order foresees is plain descent."""
    made = program(strategy, config=config(optimizer="adam", learning_rate=0.01, weight_decay=0.0))
    before = {name: weight.detach().clone() for name, weight in made.supernet.named_parameters()}
    made.start_epoch(0)
    foreseen = descent_of(made.optimizer, dict(made.supernet.named_parameters()))
    assert foreseen.learning_rate == pytest.approx(0.01) and (foreseen.momentum, foreseen.velocity) == (
        0.0,
        {},
    )
    made.step()
    for stream in made.inputs:
        stream.close()
    moved = torch.cat(
        [
            (weight.detach() - before[name]).abs().flatten()
            for name, weight in made.supernet.named_parameters()
        ]
    )
    assert moved.max() == pytest.approx(0.01, rel=1e-3)
    assert (moved > 0.009).float().mean() > 0.8
    assert math.isfinite(
        search(strategy, config=config(optimizer="adam")).history[-1]["train_loss"] or math.nan
    )


@pytest.mark.parametrize("family", SPACES)
def test_bfloat16(family: str) -> None:
    exact, rounded = (
        search("ms-darts", family, precision=precision) for precision in (torch.float32, torch.bfloat16)
    )
    for ours, theirs in zip(rounded.history, exact.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.03)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", KINDS)
def test_probes_are_losses_of_single_passes(kind: str) -> None:
    space = search_space("two-input", 2)
    task, batch = task_of(kind, space), next(loaders(kind).train)
    x = batch[0].double() if kind == "series" else batch[0]
    supernet = task.supernet(4)
    objective = BatchObjective(task, supernet, x, batch[1])
    params = dict(supernet.named_parameters())
    source = torch.Generator().manual_seed(0)
    mixes = [
        {group: torch.rand(shape, generator=source).softmax(dim=1) for group, shape in space.shapes().items()}
        for _ in range(3)
    ]
    single = [objective.evaluated(params, mix) for mix in mixes]
    torch.testing.assert_close(objective.probe(params, mixes), torch.stack(single).detach())


def test_measures_of_series_are_in_units_of_mase() -> None:
    """By hand: errors of 1 and 3 in the first window, with a scale of 2 per unit, and none in the second."""
    truth = torch.tensor([[[1.0], [2.0]], [[0.0], [0.0]]])
    scale = torch.tensor([[[2.0]], [[5.0]]])
    forecast = truth + torch.tensor([[[1.0], [-3.0]], [[0.0], [0.0]]])
    target = torch.cat([truth, scale], dim=1)
    criterion = SeriesCriterion()
    assert criterion.loss(forecast, target) == 1.0
    assert criterion.measures(forecast, target)["mase"] == 4.0


def test_measures_of_text_are_bits_per_character() -> None:
    """Four tokens are equally likely, which is 2 bits each; they have 1 and 3 characters."""
    criterion = TextCriterion(torch.tensor([1, 3, 1, 1]))
    target = torch.tensor([[0, 1], [0, 1], [1, 0]])
    logits = torch.zeros(3, 2, 4)
    assert criterion.loss(logits, target) == pytest.approx(math.log(4))
    assert float(criterion.measures(logits, target)["bits_per_character"]) / 3 == pytest.approx(12 / 12)


def test_a_search_starts_without_what_growth_adds() -> None:
    task = task_of("series", search_space("two-input", 4, ("none", "tanh", "relu")))
    assert start_of(task, None) == task.space
    start = start_of(task, GrowthConfig([AddOperation("relu")]))
    assert nodes_of(start) == 4 and start.groups["left"][0].ops == ("none", "tanh")
    with pytest.raises(InvalidInput, match="adds the operations tanh, but the space ends with relu"):
        start_of(task, GrowthConfig([AddOperation("tanh")]))
