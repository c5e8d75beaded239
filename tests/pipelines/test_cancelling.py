"""A run that is to be cancelled ends itself where its worker does not: the worker is deaf after an outage of the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import State, StateType

from pipelines import cancelling
from pipelines.cancelling import EVERY, PATIENCE, Question, ToBeCancelled


class Server:
    """A server that gives one run's state, unless it is away."""

    def __init__(self) -> None:
        self.state: State | None = State(type=StateType.RUNNING)
        self.asked = 0

    def read_flow_run(self, _: UUID) -> Any:
        self.asked += 1
        if self.state is None:
            raise httpx.ConnectError("connection refused")
        return SimpleNamespace(state=self.state)


def test_a_cancelled_run_ends_itself_when_its_worker_has_had_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(cancelling, "time", SimpleNamespace(monotonic=lambda: now))
    server = Server()
    question = Question(server, uuid4())  # type: ignore[arg-type]

    def ask_until(end: float) -> None:
        nonlocal now
        while now < end:
            now += 0.5
            question.ask()

    ask_until(100)
    assert server.asked == 100 // EVERY
    server.state = None  # away; nothing is known
    ask_until(200)
    server.state = State(type=StateType.CANCELLING)
    ask_until(200 + PATIENCE)
    with pytest.raises(ToBeCancelled):
        ask_until(200 + PATIENCE + 2 * EVERY)
