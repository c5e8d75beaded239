"""A search that grows resumes bit-identically, wherever it was interrupted: its structure first, then its numbers."""

from __future__ import annotations

import pytest
import torch

from models.search.program import Found
from models.training.events import EpochEnd, Event, State, StepEnd
from models.training.loop import run
from tests.models.processes import Interrupted, copied, repeatable
from tests.models.sequences.growing import MODES, growing, uninterrupted


def states_until(strategy: str, mode: str, epoch: int, step: int) -> list[State]:
    """What is saved after each epoch of a search that is interrupted after a step of an epoch, counted from 1."""
    saved: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            saved.append(copied(event.state()))
        if isinstance(event, StepEnd) and (event.epoch, event.step) == (epoch, step):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(growing(strategy, mode), on_event=interrupt)
    return saved


def assert_equal(found: Found, expected: Found) -> None:
    assert repeatable(found.history) == repeatable(expected.history)
    assert (found.summary, found.genotype) == (expected.summary, expected.genotype)
    assert all(torch.equal(found.weights[name], weight) for name, weight in expected.weights.items())
    for ours, theirs in zip(found.alphas, expected.alphas, strict=True):
        assert all(torch.equal(ours[group], rows) for group, rows in theirs.items())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strategy", ["ms-darts", "single-level"])
def test_a_grown_search_resumes_from_every_epoch(strategy: str, mode: str) -> None:
    """It is interrupted within its last epoch; the states that it had saved until then are all continued."""
    expected, _ = uninterrupted(strategy, mode)
    saved = states_until(strategy, mode, epoch=6, step=1)
    assert len(saved) == 5
    for state in saved:
        assert_equal(run(growing(strategy, mode), resume=state), expected)


def test_a_search_that_is_interrupted_within_every_epoch() -> None:
    """Each part goes on from the state of the part before."""
    expected, _ = uninterrupted("ms-darts", "in turn")
    state: State | None = None
    for epoch in range(1, 7):
        saved: list[State] = []

        def interrupt(event: Event, saved: list[State] = saved, epoch: int = epoch) -> None:
            if isinstance(event, EpochEnd):
                saved.append(copied(event.state()))
            if isinstance(event, StepEnd) and (event.epoch, event.step) == (epoch, 1):
                raise Interrupted

        with pytest.raises(Interrupted):
            run(growing("ms-darts", "in turn"), on_event=interrupt, resume=state)
        state = saved[-1] if saved else state
    assert state is not None
    assert_equal(run(growing("ms-darts", "in turn"), resume=state), expected)
