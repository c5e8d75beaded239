"""Searches that grow in each of the ways there are."""

from __future__ import annotations

from functools import cache

from models.search.growth import AddNode, AddOperation, GrowthConfig, Widen
from models.search.program import Found, Search
from models.training.events import Event
from models.training.loop import run
from tests.models.sequences.tiny import config, program

MODES = {
    "grow then prune": GrowthConfig([AddNode(), AddOperation("sigmoid"), Widen(6)], every=1, budget=18),
    "in turn": GrowthConfig([AddOperation("sigmoid"), AddNode()], mode="alternating", every=2, budget=16),
    "on a plateau": GrowthConfig([AddNode(), Widen(5)], patience=1),
}


def growing(strategy: str, mode: str, *, curvature: bool = False, **named: object) -> Search:
    return program(
        strategy,
        "two-input",
        config=config(epochs=6, curvature_cases=4, landscape_points=3) if curvature else config(epochs=6),
        nodes=3,
        operations=("none", "tanh", "identity")
        if mode == "on a plateau"
        else ("none", "tanh", "identity", "sigmoid"),
        growth=MODES[mode],
        **named,  # pyright: ignore[reportArgumentType]
    )


@cache
def uninterrupted(strategy: str, mode: str) -> tuple[Found, list[Event]]:
    heard: list[Event] = []
    return run(growing(strategy, mode), on_event=heard.append), heard
