"""A search that grows resumes bit-identically, wherever it was interrupted: its structure first, then its numbers."""

from __future__ import annotations

import pytest
import torch

from models.search.program import Search
from models.training.events import EpochEnd, Event, State
from models.training.loop import run
from tests.models.processes import Interrupted, copied, repeatable
from tests.models.sequences.growing import MODES, growing, uninterrupted


def interrupted(search: Search, last: int) -> State | None:
    """The state that is saved when a search ends at its event number ``last``."""
    saved: list[State] = []
    heard: list[Event] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            saved.append(copied(event.state()))
        heard.append(event)
        if len(heard) > last:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(search, on_event=interrupt)
    return saved[-1] if saved else None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strategy", ["ms-darts", "single-level"])
def test_a_grown_search_resumes_from_every_event(strategy: str, mode: str) -> None:
    expected, events = uninterrupted(strategy, mode)
    for last in range(len(events)):
        found = run(growing(strategy, mode), resume=interrupted(growing(strategy, mode), last))
        assert repeatable(found.history) == repeatable(expected.history)
        assert (found.summary, found.genotype) == (expected.summary, expected.genotype)
        assert all(torch.equal(found.weights[name], weight) for name, weight in expected.weights.items())
        for ours, theirs in zip(found.alphas, expected.alphas, strict=True):
            assert all(torch.equal(ours[group], rows) for group, rows in theirs.items())
