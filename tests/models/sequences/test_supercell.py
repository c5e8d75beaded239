"""The supercell equals the obvious code in benchmarks/plain_sequences.py, with which it shares no line."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.plain_sequences import copy_weights, pairs, plain_of
from models.search.objective import Mix
from models.search.spaces import SearchSpace
from models.sequences.activation import FUNCTIONS, combined, mixed_activation
from models.sequences.spaces import one_input, two_input
from models.sequences.supercell import Supercell, supercell_of

INPUTS, HIDDEN, BATCH, STEPS = 3, 5, 4, 6
SPACES = [
    two_input(4),
    two_input(1),
    two_input(3, ("tanh", "relu")),
    one_input(4),
    one_input(1),
    one_input(3, ("sigmoid", "none", "identity")),
]


def random_cell(space: SearchSpace) -> Supercell:
    """A cell whose gates are not those at the start, and whose states are far from zero."""
    torch.manual_seed(0)
    cell = supercell_of(space, INPUTS, HIDDEN)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return cell


def random_mix(space: SearchSpace, seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        group: torch.softmax(2 * torch.randn(shape, generator=source), dim=1)
        for group, shape in space.shapes().items()
    }


def inputs(seed: int = 1) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, STEPS, INPUTS, generator=source), torch.randn(BATCH, HIDDEN, generator=source)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_outputs_and_gradients_are_those_of_the_plain_loops(space: SearchSpace) -> None:
    cell, plain = random_cell(space), plain_of(space, INPUTS, HIDDEN)
    copy_weights(cell, plain)
    x, state = inputs()
    ours = {group: rows.requires_grad_() for group, rows in random_mix(space, 2).items()}
    theirs = {group: rows.detach().clone().requires_grad_() for group, rows in ours.items()}
    found, last = cell(x, state, ours)
    expected, expected_last = plain(x, state, theirs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(last, expected_last, rtol=1e-10, atol=1e-11)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for group, rows in ours.items():
        torch.testing.assert_close(rows.grad, theirs[group].grad, rtol=1e-8, atol=1e-9)

    def gradient(parameter: Tensor) -> Tensor:
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    for mine, other in pairs(cell, plain, gradient):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("space", [two_input(3), one_input(3)], ids=lambda space: space.family)
@pytest.mark.parametrize("with_state", [False, True])
def test_stacked_mixes_are_passes_one_after_another(space: SearchSpace, with_state: bool) -> None:
    cell, (x, state) = random_cell(space), inputs()
    mixes = [random_mix(space, seed) for seed in range(3)]
    stacked: Mix = {group: torch.stack([mix[group] for mix in mixes]) for group in mixes[0]}
    states = [state, 2 * state, -state]
    found, last = cell(x, torch.cat(states) if with_state else None, stacked)
    expected = [cell(x, given if with_state else None, mix) for given, mix in zip(states, mixes, strict=True)]
    torch.testing.assert_close(found, torch.cat([outputs for outputs, _ in expected]))
    torch.testing.assert_close(last, torch.cat([state for _, state in expected]))


@pytest.mark.usefixtures("double")
def test_derivatives_of_the_mixed_activation_are_those_of_differences() -> None:
    source = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 4, 2, generator=source).requires_grad_()
    weights = torch.randn(2, 4, 5, generator=source).requires_grad_()
    operations = ("none", *FUNCTIONS)

    def mixed(z: Tensor, weights: Tensor) -> Tensor:
        return mixed_activation(z, weights, operations)

    assert torch.autograd.gradcheck(mixed, (z, weights))
    assert torch.autograd.gradgradcheck(mixed, (z, weights))
    found = mixed_activation(z, weights, ("none",) * 5)
    assert not found.any()


@pytest.mark.usefixtures("double")
def test_derivatives_of_the_combiners_are_those_of_differences() -> None:
    """Some products are beyond the bound."""
    source = torch.Generator().manual_seed(0)
    sides = torch.randn(2, 3, 2, 4, generator=source).requires_grad_()
    weights = torch.rand(2, 2, generator=source).requires_grad_()

    def of(sides: Tensor, weights: Tensor) -> Tensor:
        return combined(sides, weights, 0.5)

    products = sides[:, :, 0] * sides[:, :, 1]
    assert (products.abs() > 0.5).any() and (products.abs() < 0.5).any()
    mean, product = weights[:, :, None, None].unbind(dim=1)
    expected = mean * sides.mean(dim=2) + product * products.clamp(-0.5, 0.5)
    torch.testing.assert_close(of(sides, weights), expected)
    assert torch.autograd.gradcheck(of, (sides, weights))
    assert torch.autograd.gradgradcheck(of, (sides, weights))


def test_states_stay_finite_where_products_of_products_do_not() -> None:
    space = two_input(4)
    torch.manual_seed(0)
    cell = supercell_of(space, INPUTS, HIDDEN)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(1e4)
    mix = {group: torch.zeros(shape) for group, shape in space.shapes().items()}
    mix["left"][:, 4] = mix["right"][:, 4] = mix["combiner"][:, 1] = 1.0
    outputs, _ = cell(1e4 * inputs()[0], None, mix)
    assert outputs.isfinite().all() and outputs.abs().max() <= 10
