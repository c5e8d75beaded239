"""A run that is to be cancelled ends itself where its worker does not end it.

A worker hears of cancellations by a connection that it does not restore after the server was away for half a minute. The run would
go on to its end, and the server would call it cancelled after five minutes all the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

EVERY = 10.0  # seconds between two questions
PATIENCE = 30.0  # seconds that the worker has to end the run, which it does in an orderly way, too
TIMEOUT = 5.0  # seconds; the stage's lines wait for the answer


class ToBeCancelled(Exception):
    """Somebody has cancelled this run, and its worker has not ended it."""


@contextlib.contextmanager
def asked() -> Iterator[Callable[[], None]]:
    """Yields what raises ToBeCancelled, when it is called often enough, soon after this run was cancelled."""
    settings = {"timeout": TIMEOUT}
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings=settings) as client,
    ):
        yield Question(client, flow_run.id).ask


class Question:
    """Asks the server now and then whether a run is to be cancelled. ``client`` raises at once when the server is away."""

    def __init__(self, client: SyncPrefectClient, run: UUID):
        self.client, self.run = client, run
        self.next = time.monotonic() + EVERY
        self.since: float | None = None  # when it was first known

    def ask(self) -> None:
        """Raises ToBeCancelled."""
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + EVERY
        try:
            state = self.client.read_flow_run(self.run).state
        except httpx.HTTPError:
            return
        if state is None or not (state.is_cancelling() or state.is_cancelled()):
            self.since = None
        elif self.since is None:
            self.since = now
        elif now - self.since >= PATIENCE:
            raise ToBeCancelled
