"""Penalties against closed forms: their values, their gradients, and what they do to alpha in a step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.images.spaces import search_space
from models.search.discretize import discretize, one_hot
from models.search.gradients import Descent, Joint, Pathwise, Step, unrolled
from models.search.penalties import Discretization, Measure, Rising, beta, entropy
from models.search.smoothing import Perturbation, PerturbationConfig
from models.search.spaces import Edge, SearchSpace
from models.search.strategies import AlphaConfig, Alternating, indecision, largest_weight, sigmoid, softmax
from models.training.schedules import geometric
from models.training.seeds import generator
from tests.models.toy import SPACE, ToyObjective, weights

pytestmark = pytest.mark.usefixtures("double")
DESCENT = Descent(0.1, 0.9, 3e-4, {})
CONFIG = AlphaConfig(learning_rate=0.05, warmup_epochs=0)
EPOCHS = 5


def logits(seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {group: torch.randn(shape, generator=source) for group, shape in SPACE.shapes().items()}


def relaxed(alphas: dict[str, Tensor]) -> dict[str, Tensor]:
    return {group: softmax(rows) for group, rows in alphas.items()}


def value_and_gradient(measure: Measure, at: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    leaves = {group: rows.clone().requires_grad_() for group, rows in at.items()}
    value = measure(leaves, relaxed(leaves))
    gradients = torch.autograd.grad(value, list(leaves.values()))
    return value.item(), dict(zip(leaves, gradients, strict=True))


def test_beta_is_the_mean_of_logsumexp_and_pulls_each_operation_by_its_softmax() -> None:
    at, edges = logits(), 3
    value, gradients = value_and_gradient(beta, at)
    rows = [row for group in at.values() for row in group.tolist()]
    assert value == pytest.approx(sum(math.log(sum(map(math.exp, row))) for row in rows) / edges)
    for group, gradient in gradients.items():
        torch.testing.assert_close(gradient, softmax(at[group]) / edges)


def test_entropy_is_that_of_the_rows_and_its_gradient_the_known_one() -> None:
    """dH/dalpha_o = -p_o (log p_o + H), divided by the number of edges."""
    at, edges = logits(), 3
    value, gradients = value_and_gradient(entropy, at)
    total = 0.0
    for group, gradient in gradients.items():
        p = softmax(at[group])
        h = -(p * p.log()).sum(dim=-1, keepdim=True)
        total += float(h.sum())
        torch.testing.assert_close(gradient, -p * (p.log() + h) / edges)
    assert value == pytest.approx(total / edges)


def test_discretization_is_the_cross_entropy_with_the_genotype() -> None:
    """Where every edge is kept: -log p of the strongest operation; its gradient is p minus one-hot."""
    at, edges = logits(), 3
    value, gradients = value_and_gradient(Discretization(SPACE), at)
    expected = [-math.log(float(row.max())) for rows in relaxed(at).values() for row in rows]
    assert value == pytest.approx(sum(expected) / edges)
    for group, rows in relaxed(at).items():
        chosen = torch.nn.functional.one_hot(rows.argmax(dim=-1), rows.shape[-1])
        torch.testing.assert_close(gradients[group], (rows - chosen) / edges)


def test_an_edge_that_the_genotype_drops_is_pulled_to_none_or_left_alone() -> None:
    """Three edges into one node that keeps one of them; the second of those it drops has no ``none``."""
    ops = ("none", "a", "b")
    space = SearchSpace(
        "s", "s", {"g": (Edge(0, 3, ops), Edge(1, 3, ops), Edge(2, 3, ("c", "a", "b")))}, 1, True
    )
    at = {"g": torch.tensor([[0.0, 3.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.0, 0.0]])}
    value, gradients = value_and_gradient(Discretization(space), at)
    p = softmax(at["g"])
    assert value == pytest.approx(-(p[0, 1].log() + p[1, 0].log()).item() / 3)
    target = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(gradients["g"][:2], (p[:2] - target) / 3)
    assert not gradients["g"][2].any()


def test_no_discretization_is_left_where_the_mix_is_its_genotype() -> None:
    """Of the space of DARTS: dropped edges are ``none`` then, so that discretizing changes nothing."""
    space = search_space("s5")
    mix = {group: softmax(torch.randn(shape)) for group, shape in space.shapes().items()}
    decided = one_hot(space, discretize(space, mix))
    for group in decided:
        decided[group][decided[group].sum(dim=-1) == 0, 0] = 1.0
    assert float(Discretization(space)({}, decided)) == 0.0
    assert float(Discretization(space)({}, mix)) > 1.0


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0, [0.0, 0.5, 1.0, 1.5, 2.0]), (2, [0.0, 0.0, 0.0, 1.0, 2.0]), (4, [0.0] * 5)],
)
def test_the_weight_rises_linearly_from_nothing(start: int, expected: list[float]) -> None:
    penalty, seen = Rising(entropy, 2.0, EPOCHS, start), []
    for epoch in range(EPOCHS):
        penalty.start_epoch(epoch)
        seen.append(penalty.weight)
    assert seen == pytest.approx(expected)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the weight of a penalty is -1"):
        Rising(entropy, -1, EPOCHS)
    with pytest.raises(InvalidInput, match="starts in epoch 5 of 5"):
        Rising(entropy, 1, EPOCHS, 5)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "first order": {},
    "second order": {"estimator": Pathwise(unrolled)},
    "smoothed": {"smoothing": Perturbation(PerturbationConfig(), EPOCHS, generator(0, "smoothing"))},
    "joint": {"estimator": Joint(), "relaxation": sigmoid},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_step_descends_the_estimators_loss_plus_the_weighted_penalty(name: str) -> None:
    """The first step of Adam is the sign of the gradient, so the gradient itself is looked at."""

    def gradient(**arguments: Any) -> tuple[Alternating, dict[str, Tensor]]:
        found = Alternating(SPACE, CONFIG, generator(0, "alpha"), **ARGUMENTS[name], **arguments)
        found.start_epoch(3)
        found.step(Step(weights(), ToyObjective(1), ToyObjective(2), lambda: DESCENT))
        return found, {group: rows.grad for group, rows in found.alpha.items() if rows.grad is not None}

    _, plain = gradient()
    before = Alternating(SPACE, CONFIG, generator(0, "alpha")).alphas()
    for measure in (beta, entropy, Discretization(SPACE)):
        penalized, found = gradient(penalties=[Rising(measure, 2.0, EPOCHS), Rising(entropy, 0.4, EPOCHS)])
        leaves = {group: rows.clone().requires_grad_() for group, rows in before.items()}
        mix = {group: penalized.relaxation(rows) for group, rows in leaves.items()}
        total = 1.5 * measure(leaves, mix) + 0.3 * entropy(leaves, mix)
        expected = torch.autograd.grad(total, list(leaves.values()))
        for group, added in zip(leaves, expected, strict=True):
            torch.testing.assert_close(found[group], plain[group] + added)
        assert penalized.report()["penalty"] == pytest.approx(total.item())


def test_the_temperature_falls_by_the_same_factor_and_divides_alpha() -> None:
    assert [geometric(1.0, 0.01, epoch, 3) for epoch in range(3)] == pytest.approx([1.0, 0.1, 0.01])
    found = Alternating(
        SPACE, CONFIG, generator(0, "alpha"), temperature=lambda epoch: geometric(1.0, 0.01, epoch, 3)
    )
    initial = {group: rows.detach().clone() for group, rows in found.alpha.items()}
    found.start_epoch(1)
    for group, rows in found.mix().items():
        torch.testing.assert_close(rows, softmax(initial[group] / 0.1))
        torch.testing.assert_close(found.alphas()[group], initial[group] / 0.1)
    of_epoch = found.alphas()
    found.start_epoch(2)
    for group, rows in found.mix(of_epoch).items():
        torch.testing.assert_close(rows, softmax(initial[group] / 0.1))


def test_the_gradient_goes_through_the_temperature() -> None:
    found = Alternating(SPACE, CONFIG, generator(0, "alpha"), temperature=lambda _: 0.5)
    found.start_epoch(0)
    params, valid = weights(), ToyObjective(2)
    leaves = {group: (2 * rows).detach().div(2).requires_grad_() for group, rows in found.alpha.items()}
    mix = {group: softmax(rows / 0.5) for group, rows in leaves.items()}
    expected = torch.autograd.grad(valid(params, mix), list(leaves.values()))
    found.step(Step(params, ToyObjective(1), valid, lambda: DESCENT))
    for rows, gradient in zip(found.alpha.values(), expected, strict=True):
        torch.testing.assert_close(rows.grad, gradient)


def test_measures_of_decision() -> None:
    undecided = {group: torch.full(shape, 1 / shape[1]) for group, shape in SPACE.shapes().items()}
    assert indecision(undecided) == pytest.approx(1.0)
    assert largest_weight(undecided) == pytest.approx((1 / 3 + 1 / 3 + 1 / 4) / 3)
    decided = {group: torch.eye(shape[1])[: shape[0]] for group, shape in SPACE.shapes().items()}
    assert indecision(decided) == 0.0
    assert largest_weight(decided) == 1.0
    half = {"g": torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])}
    assert indecision(half) == pytest.approx(0.5)
    assert largest_weight(half) == pytest.approx(0.5)
