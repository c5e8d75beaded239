"""The server's watch: who falls silent is Crashed, and nobody is for an outage of the server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType

from pipelines.server import SILENCE
from pipelines.watch import EVERY, STARTING, Watch
from tests.stages.conftest import ROOT

HEARTBEAT = 30.0


@dataclass
class Run:
    """A flow run as far as the watch looks at it."""

    state_type: StateType
    id: UUID = field(default_factory=uuid4)
    state_id: UUID = field(default_factory=uuid4)
    heartbeat: UUID | None = None

    def beat(self) -> None:
        self.heartbeat = uuid4()


class Client:
    """The server's answers about some runs."""

    def __init__(self, *runs: Run):
        self.runs = {run.id: run for run in runs}
        self.crashed: dict[UUID, str] = {}

    def read_flow_runs(self, offset: int, **_: Any) -> list[Run]:
        return [run for run in self.runs.values() if run.id not in self.crashed][offset:]

    def read_events(self, filter: Any, limit: int) -> Any:
        (name,) = filter.resource.id
        beat = self.runs[UUID(name.removeprefix("prefect.flow-run."))].heartbeat
        return SimpleNamespace(events=[SimpleNamespace(id=beat)] if beat else [])

    def set_flow_run_state(self, run: UUID, state: State) -> None:
        assert state.is_crashed()
        self.crashed[run] = state.message or ""


def looks(watch: Watch, client: Client, begin: float, end: float, beating: Run | None = None) -> float:
    """Looks from ``begin`` to ``end``, while one run may send heartbeats. Returns the time of the last look."""
    now = begin
    while now <= end:
        if beating is not None and (now - begin) % HEARTBEAT < EVERY:
            beating.beat()
        watch.look(client, now)  # type: ignore[arg-type]
        now += EVERY
    return now - EVERY


def test_a_silent_run_is_crashed_and_the_message_claims_no_more_than_that() -> None:
    silent, live = Run(StateType.RUNNING), Run(StateType.RUNNING)
    silent.beat()
    client, watch = Client(silent, live), Watch(SILENCE)
    looks(watch, client, 0, SILENCE, live)
    assert client.crashed == {}
    looks(watch, client, SILENCE + EVERY, SILENCE + EVERY, live)
    assert client.crashed.keys() == {silent.id}
    assert client.crashed[silent.id] == (
        "nothing was heard of this run for 75 s: it was stopped or killed, or cannot reach the server; the next run goes on"
        " with the stage that was running"
    )


@pytest.mark.parametrize("seconds", [60, 120, 300])
def test_no_run_is_crashed_for_an_absence_of_the_server(seconds: float) -> None:
    live, dead = Run(StateType.RUNNING), Run(StateType.RUNNING)
    dead.beat()
    client, watch = Client(live, dead), Watch(SILENCE)
    last = looks(watch, client, 0, 50, live)
    back = last + seconds
    last = looks(watch, client, back, back + 40)  # nobody has said anything again yet
    assert client.crashed == {}
    looks(watch, client, last + EVERY, back + SILENCE + 2 * EVERY, live)
    assert client.crashed.keys() == {dead.id}  # and nobody dead is forgotten


def test_a_run_that_does_not_start_has_minutes() -> None:
    pending = Run(StateType.PENDING)
    client, watch = Client(pending), Watch(SILENCE)
    last = looks(watch, client, 0, STARTING)
    assert client.crashed == {}
    looks(watch, client, last + EVERY, last + 2 * EVERY)
    assert client.crashed[pending.id].startswith(
        "a worker took this run, and nothing was heard of it for 300 s"
    )


def test_a_change_of_state_is_a_sign_of_life_and_flows_without_heartbeats_are_left_alone() -> None:
    other, cancelled = Run(StateType.RUNNING), Run(StateType.RUNNING)
    client, watch = Client(other, cancelled), Watch(SILENCE)
    last = looks(watch, client, 0, 2 * SILENCE)
    assert client.crashed == {}
    cancelled.state_type, cancelled.state_id = StateType.CANCELLING, uuid4()
    last = looks(watch, client, last + EVERY, last + EVERY + SILENCE)
    assert client.crashed == {}
    looks(watch, client, last + EVERY, last + EVERY)
    assert client.crashed.keys() == {cancelled.id}


def test_a_dead_run_is_noticed_within_two_minutes() -> None:
    heartbeat = re.search(r"heartbeat_frequency = (\d+)", (ROOT / "prefect.toml").read_text())
    assert heartbeat is not None
    assert float(heartbeat[1]) == HEARTBEAT
    assert 2 * HEARTBEAT < SILENCE < 115  # one heartbeat may be late; the server looks every 5 s
