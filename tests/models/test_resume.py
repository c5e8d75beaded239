"""Wherever a search is interrupted, and however often: resumed, it finds what it finds without interruption."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.images.batches import BatchStream
from models.search.early_stopping import EarlyStopping, SkipConnections
from models.search.program import Found, Loaders
from models.training.events import EpochEnd, Event, Listener, State, silent
from models.training.seeds import generator
from tests.models.processes import Interrupted, copied, repeatable
from tests.models.tiny import BATCH, PREPROCESS, STRATEGIES, config, loaders, search, split

RULES: dict[str, EarlyStopping | None] = {
    "no early stopping": None,
    "after two epochs": SkipConnections(limit=-1, group="cell", minimum_epochs=1),
}


class Stage:
    """Keeps the last state, as the stage search does, and interrupts the search at one of its events."""

    def __init__(self, state: State | None, last_event: int):
        self.state, self.remaining = state, last_event

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochEnd):
            self.state = copied(event.state())
        if self.remaining == 0:
            raise Interrupted
        self.remaining -= 1


def data_of(strategy: str) -> Loaders:
    """Two batches per epoch. The stream for the architecture has three, so epochs end in the middle of a pass."""
    data = loaders(single=strategy.startswith("single"))
    if data.architecture is None:
        return data
    return replace(
        data, architecture=BatchStream(split(12, 2), BATCH, PREPROCESS, generator(0, "architecture"))
    )


def run(strategy: str, rule: str, on_event: Listener, state: State | None) -> Found:
    """At most three epochs."""
    return search(
        strategy,
        "nasbench201",
        config(epochs=3),
        data=data_of(strategy),
        early_stopping=RULES[rule],
        on_event=on_event,
        resume=copied(state),
    )


@cache
def uninterrupted(strategy: str, rule: str) -> tuple[Found, int]:
    """What is found, and the number of events on the way."""
    heard: list[Event] = []
    return run(strategy, rule, heard.append, None), len(heard)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(STRATEGIES)), st.sampled_from(sorted(RULES)), st.data())
def test_a_search_resumes_from_any_event(strategy: str, rule: str, data: st.DataObject) -> None:
    expected, events = uninterrupted(strategy, rule)
    state: State | None = None
    for last_event in data.draw(st.lists(st.integers(0, events - 1), min_size=1, max_size=2)):
        stage = Stage(state, last_event)
        try:
            run(strategy, rule, stage, state)
        except Interrupted:
            state = stage.state
    found = run(strategy, rule, silent, state)
    assert repeatable(found.history) == repeatable(expected.history)
    assert (found.summary, found.genotype, found.epoch) == (
        expected.summary,
        expected.genotype,
        expected.epoch,
    )
    for mine, others in zip(found.alphas, expected.alphas, strict=True):
        assert all(torch.equal(mine[group], rows) for group, rows in others.items())
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(found.weights[name], weight) for name, weight in expected.weights.items())
