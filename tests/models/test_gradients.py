from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.search import gradients
from models.search.gradients import Descent, Step, descent_of, first_order, unrolled
from models.search.objective import Objective, Params
from tests.models.tiny import objectives
from tests.models.toy import ToyObjective, toy_mix, weights

pytestmark = pytest.mark.usefixtures("double")


def velocity(params: Params) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(5)
    return {name: 0.1 * torch.randn(weight.shape, generator=source) for name, weight in params.items()}


def exactly_unrolled(
    mix: dict[str, Tensor], params: Params, train: Objective, valid: Objective, descent: Descent
) -> list[Tensor]:
    """The gradient of L_val(w - rate (momentum velocity + grad L_train + decay w), a) by autograd."""
    mix = {group: rows.clone().requires_grad_() for group, rows in mix.items()}
    slopes = torch.autograd.grad(train(params, mix), list(params.values()), create_graph=True)
    ahead = {
        name: weight
        - descent.learning_rate
        * (descent.momentum * descent.velocity[name] + slope + descent.weight_decay * weight)
        for (name, weight), slope in zip(params.items(), slopes, strict=True)
    }
    return list(torch.autograd.grad(valid(ahead, mix), list(mix.values())))


def test_first_order_is_the_gradient_of_the_validation_loss() -> None:
    params, mix, valid = weights(), toy_mix(), ToyObjective(2)
    loss, found = first_order(mix, Step(params, ToyObjective(1), valid, lambda: Descent(0.1, 0.9, 3e-4, {})))
    leaves = {group: rows.clone().requires_grad_() for group, rows in mix.items()}
    expected = valid(params, leaves)
    expected.backward()
    assert loss == expected.detach()
    for group, rows in leaves.items():
        torch.testing.assert_close(found[group], rows.grad, rtol=0, atol=0)


def test_unrolled_is_the_gradient_through_the_step_of_the_weights() -> None:
    params, mix, train, valid = weights(), toy_mix(), ToyObjective(1), ToyObjective(2)
    descent = Descent(0.1, 0.9, 3e-4, velocity(params))
    _, found = unrolled(mix, Step(params, train, valid, lambda: descent))
    expected = exactly_unrolled(mix, params, train, valid, descent)
    _, first = first_order(mix, Step(params, train, valid, lambda: descent))
    for group, exact in zip(mix, expected, strict=True):
        torch.testing.assert_close(found[group], exact, rtol=1e-4, atol=1e-4)
        assert (first[group] - exact).abs().max() > 0.1, "the second-order term is too small to test"


@pytest.mark.parametrize("space", ["s2", "nasbench201"])
def test_unrolled_on_a_supernet_is_the_gradient_through_the_step_of_the_weights(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a finer difference than in DARTS, whose steps cross kinks of ReLU in a small network."""
    monkeypatch.setattr(gradients, "FINITE_DIFFERENCE", 1e-6)
    tiny, train, valid, params = objectives(space)
    descent = Descent(0.025, 0.9, 3e-4, velocity(params))
    mix = {group: torch.full(shape, 1 / shape[1]) for group, shape in tiny.space.shapes().items()}
    _, found = unrolled(mix, Step(params, train, valid, lambda: descent))
    exact = exactly_unrolled(mix, params, train, valid, descent)
    _, first = first_order(mix, Step(params, train, valid, lambda: descent))
    for group, expected in zip(mix, exact, strict=True):
        torch.testing.assert_close(found[group], expected, rtol=1e-7, atol=1e-7)
        assert (first[group] - expected).abs().max() > 1e-3, "the second-order term is too small to test"


def test_the_virtual_step_is_the_next_step_of_the_optimizer() -> None:
    params = weights()
    optimizer = torch.optim.SGD(list(params.values()), lr=0.05, momentum=0.9, weight_decay=3e-4)
    for seed in range(3):
        slopes = {name: torch.randn_like(weight) for name, weight in weights(seed).items()}
        expected = descent_of(optimizer, params).step(params, slopes)
        for name, weight in params.items():
            weight.grad = slopes[name]
        optimizer.step()
        for name, weight in params.items():
            torch.testing.assert_close(weight.detach(), expected[name], rtol=0, atol=1e-15)
