"""Candidates are frozen when their gradients disagree, each edge for itself, and stay as they are from then on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.images.search import image_search
from models.images.supernet import stacks
from models.search.freezing import FreezingConfig, GradientAgreement, Stack, agreement
from models.search.program import Found
from models.training.events import EpochEnd, Event
from models.training.loop import run
from tests.models.processes import copied, repeatable
from tests.models.tiny import STRATEGIES, config, loaders, size, task

STACK = Stack(("w", "v"), 2)


def gradients(angle: float) -> dict[str, Tensor]:
    """Edge 0 at an angle to (1, 0, 0), over both weights; edge 1 always the same."""
    return {
        "w": torch.tensor([[math.cos(angle)], [1.0]]),
        "v": torch.tensor([[math.sin(angle), 0.0], [2.0, 3.0]]),
    }


def test_agreement_is_the_cosine_over_all_weights_of_an_edge() -> None:
    found = agreement(STACK, gradients(0.0), gradients(math.pi / 3))
    torch.testing.assert_close(found, torch.tensor([0.5, 1.0]))


def test_an_operation_without_gradients_is_not_taken_to_disagree() -> None:
    nothing = {name: torch.zeros_like(rows) for name, rows in gradients(0).items()}
    assert agreement(STACK, nothing, gradients(0)).tolist() == [1.0, 1.0]


def test_the_mean_over_the_steps_decides_and_a_frozen_edge_stays_frozen() -> None:
    found = GradientAgreement([STACK], FreezingConfig(threshold=0.4, steps=2))
    for angle in (0.0, math.pi / 2):  # mean 0.5
        found.observe(gradients(0.0), gradients(angle))
    assert found.frozen[0].tolist() == [False, False]
    for angle in (math.pi / 3, math.pi / 2):  # mean 0.25
        found.observe(gradients(0.0), gradients(angle))
    assert found.frozen[0].tolist() == [True, False]
    for _ in range(2):
        found.observe(gradients(0.0), gradients(0.0))
    assert found.frozen[0].tolist() == [True, False]
    assert found.report() == {"frozen": 0.5}


def test_a_frozen_part_is_held_against_momentum_and_decay_and_no_other_part_is() -> None:
    params = {name: torch.nn.Parameter(rows.clone()) for name, rows in gradients(1.0).items()}
    before = {name: rows.detach().clone() for name, rows in params.items()}
    optimizer = torch.optim.SGD(params.values(), lr=0.1, momentum=0.9, weight_decay=0.1)
    found = GradientAgreement([STACK], FreezingConfig(threshold=0.9, steps=1))
    found.observe(gradients(0.0), gradients(1.0))
    for rows in params.values():
        rows.grad = torch.ones_like(rows)
    for _ in range(2):
        with found.holding(params):
            optimizer.step()
    for name, rows in params.items():
        assert torch.equal(rows[0], before[name][0])
        assert not torch.isclose(rows[1], before[name][1]).any()


@pytest.mark.parametrize("space", ["s1", "s4", "s5", "nasbench201"])
def test_every_weight_of_a_candidate_is_in_one_stack_whose_edges_divide_it(space: str) -> None:
    supernet = task(space).supernet(channels=2, cells=size(space).cells)
    found = stacks(supernet)
    weights = dict(supernet.named_parameters())
    names = [name for stack in found for name in stack.weights]
    assert sorted(names) == sorted(name for name in weights if ".ops." in name)
    assert len(names) == len(set(names))
    for stack in found:
        for name in stack.weights:
            assert len(weights[name]) % stack.edges == 0


def searched(steps: int = 2, **arguments: Any) -> Found:
    space = task("nasbench201")
    program = image_search(
        space,
        STRATEGIES["ms-darts"](space.space, 3),
        loaders(),
        config(epochs=3),
        size("nasbench201"),
        freezing=FreezingConfig(0.99, steps),
    )
    return run(program, **arguments)


def test_a_search_freezes_operations_and_resumes_bit_for_bit() -> None:
    states = []

    def keep(event: Event) -> None:
        if isinstance(event, EpochEnd):
            states.append(copied(event.state()))

    whole = searched(steps=3, on_event=keep)
    assert whole.history[0]["frozen"] == 0
    assert (whole.history[-1]["frozen"] or 0) > 0.5
    for state in states[:2]:
        resumed = searched(steps=3, resume=state)
        assert repeatable(resumed.history) == repeatable(whole.history)
        assert all(torch.equal(resumed.weights[name], rows) for name, rows in whole.weights.items())


def test_a_single_level_search_cannot_freeze() -> None:
    space = task("nasbench201")
    with pytest.raises(InvalidInput, match="validation batches"):
        image_search(
            space,
            STRATEGIES["single-level"](space.space, 2),
            loaders(single=True),
            config(),
            size("nasbench201"),
            freezing=FreezingConfig(),
        )


@pytest.mark.parametrize(("threshold", "steps"), [(1.0, 20), (-1.0, 20), (0.4, 0)])
def test_settings_without_a_meaning_are_refused(threshold: float, steps: int) -> None:
    with pytest.raises(InvalidInput, match="freezing"):
        FreezingConfig(threshold, steps)
