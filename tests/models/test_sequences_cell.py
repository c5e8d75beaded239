"""The fast cell against its equations, written step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.search.genotype import Genotype
from models.sequences.cell import FoundCell, OneInputBody, TwoInputBody
from models.sequences.skeleton import Forecaster, LanguageModel, SeriesShape
from models.training.denormals import without_denormals

OPERATIONS: dict[str, Any] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
INPUTS, HIDDEN = 3, 4


def random_genotype(space: str, nodes: int, seed: int) -> Genotype:
    source = torch.Generator().manual_seed(seed)

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=source))

    def op() -> str:
        return list(OPERATIONS)[draw(4)]

    if space == "one-input":
        return Genotype(space, {"cell": tuple((draw(dst), dst, op()) for dst in range(1, nodes + 1))})
    computed = range(2, nodes + 2)
    return Genotype(
        space,
        {
            **{side: tuple((draw(dst), dst, op()) for dst in computed) for side in ("left", "right")},
            "combiner": tuple((dst, dst, ("sum", "product")[draw(2)]) for dst in computed),
        },
    )


def plain(cell: FoundCell, genotype: Genotype, x_BTI: Tensor, state: Tensor) -> Tensor:
    """The outputs (B, T, H) by the equations."""
    body, outputs = cell.body, []
    for x in x_BTI.unbind(1):
        both = torch.cat([x, state], dim=1)
        first = both @ body.input.weight.T + body.input.bias  # pyright: ignore
        if isinstance(body, TwoInputBody):
            nodes = [state, first]
            for left, right, (_, _, how) in zip(
                *(genotype.groups[group] for group in ("left", "right", "combiner")), strict=True
            ):
                number = len(nodes) - 2
                a, b = (
                    OPERATIONS[op](nodes[src] @ body.weight[number, side].T + body.bias[number, side])
                    for side, (src, _, op) in enumerate((left, right))
                )
                nodes.append((a * b).clamp(-10, 10) if how == "product" else (a + b) / 2)
            computed = nodes[2:]
        else:
            assert isinstance(body, OneInputBody)
            gate, candidate = first.chunk(2, dim=1)
            nodes = [state + torch.sigmoid(gate) * (torch.tanh(candidate) - state)]
            for number, (src, _, op) in enumerate(genotype.groups["cell"]):
                gate, candidate = (nodes[src] @ body.weight[number].T + body.bias[number]).chunk(2, dim=1)
                nodes.append(nodes[src] + torch.sigmoid(gate) * (OPERATIONS[op](candidate) - nodes[src]))
            computed = nodes[1:]
        total = sum(gate * node for gate, node in zip(body.gates, computed, strict=True))
        assert isinstance(total, Tensor)
        total = total.clamp(-10, 10)
        if isinstance(body, TwoInputBody):
            update = torch.sigmoid(both @ body.update.weight.T + body.update.bias)
            total = state + update * (total - state)
        state = total
        outputs.append(state)
    return torch.stack(outputs, dim=1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("space", ["two-input", "one-input"])
@pytest.mark.parametrize("seed", range(12))
def test_the_cell_computes_the_equations(space: str, seed: int) -> None:
    torch.manual_seed(seed)
    genotype = random_genotype(space, 1 + seed % 6, seed)
    cell = FoundCell(genotype, INPUTS, HIDDEN)
    torch.nn.init.normal_(cell.body.gates)
    x, state = torch.randn(5, 7, INPUTS), torch.randn(5, HIDDEN)
    outputs, last = cell(x, state)
    torch.testing.assert_close(outputs, plain(cell, genotype, x, state), rtol=1e-10, atol=1e-10)
    assert torch.equal(last, outputs[:, -1])
    assert torch.equal(cell(x, None)[0], cell(x, torch.zeros(5, HIDDEN))[0])
    gradients = torch.autograd.grad(outputs.square().sum(), tuple(cell.parameters()), materialize_grads=True)
    expected = torch.autograd.grad(
        plain(cell, genotype, x, state).square().sum(), tuple(cell.parameters()), materialize_grads=True
    )
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("space", ["two-input", "one-input"])
def test_a_state_that_is_carried_equals_one_long_pass(space: str) -> None:
    torch.manual_seed(0)
    cell = FoundCell(random_genotype(space, 4, 3), INPUTS, HIDDEN)
    x = torch.randn(2, 9, INPUTS)
    whole, end = cell(x, None)
    first, state = cell(x[:, :4], None)
    second, last = cell(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(last, end, rtol=0, atol=1e-6)


def test_products_of_products_stay_finite_and_so_do_their_gradients() -> None:
    """Six nodes that square each other: the last one would be a power of 64."""
    nodes = range(2, 8)
    squares = tuple((dst - 1, dst, "identity") for dst in nodes)
    genotype = Genotype(
        "two-input",
        {"left": squares, "right": squares, "combiner": tuple((dst, dst, "product") for dst in nodes)},
    )
    torch.manual_seed(0)
    cell = FoundCell(genotype, INPUTS, 16)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(20)
    outputs, _ = cell(1e3 * torch.randn(3, 30, INPUTS), None)
    assert outputs.abs().max() == 10
    outputs.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in cell.parameters() if parameter.grad is not None)  # fmt: skip


@pytest.mark.parametrize("space", ["two-input", "one-input"])
def test_in_bfloat16_the_state_stays_float32(space: str) -> None:
    torch.manual_seed(0)
    cell = FoundCell(random_genotype(space, 3, 1), INPUTS, HIDDEN)
    x = torch.randn(2, 6, INPUTS)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = cell(x, None)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, cell(x, None)[0], rtol=0.05, atol=0.05)


class _Constant(torch.nn.Module):
    """A cell whose outputs are zeros, with as many rows as mixes ask for."""

    hidden = HIDDEN

    def forward(self, x_BTI: Tensor, state: Tensor | None, mixes: int = 1) -> tuple[Tensor, Tensor]:
        outputs = torch.zeros(mixes * len(x_BTI), x_BTI.shape[1], HIDDEN)
        return outputs, outputs[:, -1]


def test_the_forecast_follows_the_level_of_the_targets_and_not_that_of_covariates() -> None:
    torch.manual_seed(0)
    shape = SeriesShape(lookback=6, horizon=2, variables=3, targets=2)
    network = Forecaster(FoundCell(random_genotype("two-input", 3, 1), 3, HIDDEN), shape)
    x, level = torch.randn(4, 6, 3), torch.tensor([5.0, -3.0, 0.0])
    torch.testing.assert_close(network(x + level), network(x) + level[:2])
    assert network(x).shape == (4, 2, 2)
    assert not torch.allclose(network(x + torch.tensor([0.0, 0.0, 1.0])), network(x))


def test_the_linear_part_is_shared_by_targets_and_repeated_for_each_mix() -> None:
    torch.manual_seed(0)
    shape = SeriesShape(lookback=3, horizon=2, variables=2, targets=2)
    network = Forecaster(_Constant(), shape)
    torch.nn.init.zeros_(network.head.bias)
    x = torch.randn(4, 3, 2)
    for target in range(2):
        last = x[:, -1:, target]
        straight = (x[:, :, target] - last) @ network.linear.weight.T + network.linear.bias + last
        torch.testing.assert_close(network(x)[:, :, target], straight)
    torch.testing.assert_close(network(x, 3), network(x).repeat(3, 1, 1))


def test_an_outlier_reaches_the_linear_part_and_only_bounded_the_cell() -> None:
    torch.manual_seed(0)
    shape = SeriesShape(lookback=3, horizon=2, variables=2, targets=1)
    network = Forecaster(FoundCell(random_genotype("two-input", 3, 1), 2, HIDDEN), shape)
    x = torch.randn(1, 3, 2)
    far, farther = x.clone(), x.clone()
    far[0, 1, 1], farther[0, 1, 1] = 10.0, 1e6
    assert torch.equal(network(far), network(farther)), "a covariate"
    far[0, 1, 0], farther[0, 1, 0] = float(x[0, -1, 0]) + 10, float(x[0, -1, 0]) + 1e3
    straight = (farther[0, 1, 0] - far[0, 1, 0]) * network.linear.weight[:, 1]
    torch.testing.assert_close((network(farther) - network(far))[0, :, 0], straight, rtol=1e-4, atol=1e-3)


def test_the_language_model_predicts_from_what_came_before() -> None:
    torch.manual_seed(0)
    model = LanguageModel(FoundCell(random_genotype("one-input", 3, 1), 5, HIDDEN), tokens=7, embedding=5)
    tokens = torch.randint(7, (2, 6))
    logits, state = model(tokens, None)
    assert logits.shape == (2, 6, 7) and state.shape == (2, HIDDEN)
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 7
    again, _ = model(changed, None)
    assert torch.equal(again[:, :4], logits[:, :4]) and not torch.equal(again[:, 4:], logits[:, 4:])


def test_denormal_numbers_are_zero_within_the_block_only() -> None:
    tiny = torch.tensor([1e-30])
    with without_denormals():
        assert float(tiny * 1e-10) == 0
    assert float(tiny * 1e-10) != 0
