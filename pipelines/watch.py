"""Marks runs Crashed whose process has died without a word, and never counts the server's own downtime as their silence.

Prefect's automations compare the clock with the time at which the next heartbeat was due. When a server starts again after a
minute, everything is overdue, and all live runs are crashed before they can say a word. The watch counts the time instead during
which the server answered and a run said nothing. It looks every few seconds, and starts anew whenever the server does not answer
or a look is late, as after a suspension. It asks through the API, so the database does not matter.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed

# Between taking a run and its first heartbeat, a worker imports everything, on a cold machine for minutes.
STARTING = 300.0  # seconds

EVERY = 5.0  # seconds between two looks
LATE = 20.0  # seconds between two looks that mean an interruption
STARTS = 12  # looks that may fail before anybody is told, because the server starts

_LIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_PAGE = 200  # runs that the server returns at once
_RESUME = "the next run goes on with the stage that was running"

logger = logging.getLogger("prefect.msdarts.watch")


@dataclass(frozen=True)
class Sign:
    """The last that was heard of a run, and since when."""

    state: UUID | None
    heartbeat: UUID | None
    since: float  # seconds of a monotonic clock


class Watch:
    """What has been heard of each live run since the server was last interrupted."""

    def __init__(self, silence: float, starting: float = STARTING):
        self.silence, self.starting = silence, starting
        self.signs: dict[UUID, Sign] = {}
        self.looked = -math.inf

    def look(self, client: SyncPrefectClient, now: float) -> None:
        """Marks the runs Crashed that were silent for too long; ``now`` in seconds of a monotonic clock. Raises httpx.HTTPError."""
        known = self.signs if now - self.looked <= LATE else {}
        self.signs, self.looked = {}, now
        for run in live_runs(client):
            heard = Sign(run.state_id, last_heartbeat(client, run.id), now)
            before = known.get(run.id)
            if before is not None and (before.state, before.heartbeat) == (heard.state, heard.heartbeat):
                heard = before
            self.signs[run.id] = heard
            limit = self.limit(run, heard)
            if now - heard.since > limit:
                client.set_flow_run_state(run.id, Crashed(message=message(run, limit)))

    def limit(self, run: FlowRun, heard: Sign) -> float:
        """How many seconds a run may be silent. A run that sends no heartbeats is never silent."""
        if run.state_type == StateType.PENDING:
            return self.starting
        return self.silence if heard.heartbeat or run.state_type == StateType.CANCELLING else math.inf


def message(run: FlowRun, limit: float) -> str:
    """What is known: that nothing was heard. Whether a process still runs is not."""
    if run.state_type == StateType.PENDING:
        return f"a worker took this run, and nothing was heard of it for {limit:.0f} s; {_RESUME}"
    return (
        f"nothing was heard of this run for {limit:.0f} s: it was stopped or killed, or cannot reach the server;"
        f" {_RESUME}"
    )


def live_runs(client: SyncPrefectClient) -> Iterator[FlowRun]:
    """All runs that are pending, running or being cancelled."""
    live = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_LIVE)))
    offset = 0
    while page := client.read_flow_runs(flow_run_filter=live, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)


def last_heartbeat(client: SyncPrefectClient, run: UUID) -> UUID | None:
    """The newest heartbeat of a run that the server has received."""
    heartbeats = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
    )
    events = client.read_events(heartbeats, limit=1).events
    return events[0].id if events else None


def watch(api: str, silence: float) -> None:
    """Watches the runs of the server with this address, for ever."""
    watching, failures = Watch(silence), 0
    with temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: 0}):
        while True:
            try:
                # A new one each time: the server closes a connection that is idle for 5 s, as long as we pause.
                with get_client(sync_client=True) as client:
                    watching.look(client, time.monotonic())
                failures = 0
            except httpx.HTTPError as error:  # the server starts, or its database is away
                watching, failures = Watch(silence), failures + 1
                if failures > STARTS:
                    logger.warning("cannot look for silent runs: %s", error)
            except (
                Exception
            ):  # told with its traceback; a watch that ended would leave the runs of dead workers for ever
                watching = Watch(silence)
                logger.exception("cannot look for silent runs")
            time.sleep(EVERY)
