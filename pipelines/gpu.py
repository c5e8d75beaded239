"""A worker's GPU, which its runs take by turns: a lease of one slot, renewed while a stage computes.

Prefect's own ``concurrency`` ends a run when the server is away for a minute. Nobody can take the slot from such a run, because
other runs must ask the same server, and the server waits after its own outages (pipelines/leases.py). So this lease goes on, and
the stage ends only when the server says that it has given the slot to another run.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from stages.errors import MachineError, UserError

LIMIT = "MSDARTS_GPU_LIMIT"  # name of the global concurrency limit that guards this worker's GPU
LEASE = 60.0  # seconds after which the GPU of a run that died is free again
RENEWAL = 20.0  # seconds between two renewals
PATIENCE = 3.0  # seconds until the next attempt when the server does not answer or the GPU is taken
TIMEOUT = 10.0  # seconds for an answer: after an outage, the server waits for a sign of this run only so long (leases.py)

_GONE, _LOCKED = httpx.codes.GONE, httpx.codes.LOCKED


_UNRETURNED: dict[str, UUID] = {}  # leases of this process whose end the server could not be told, by limit


@contextlib.contextmanager
def held(limit: str) -> Iterator[Callable[[], None]]:
    """Waits for the GPU and holds it within the block.

    Yields a function that raises MachineError once another run has the GPU. Raises UserError where the server has no limit of
    that name.
    """
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT}) as client,
        Lease(client, limit).held() as lease,
    ):
        yield lease.check


class Lease:
    """One slot of a limit. ``client`` raises at once when the server is away."""

    def __init__(self, client: SyncPrefectClient, limit: str):
        self.client, self.limit = client, limit
        self.id: UUID | None = None
        self.ending = threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[Lease]:
        """Waits for the slot, renews the lease within the block, and returns the slot at its end."""
        self._wait()
        # A copy of the context, because the settings of held() are in it: Prefect's client would repeat requests itself, with
        # pauses that are too long for the server's patience.
        renew = contextvars.copy_context().run
        thread = threading.Thread(
            target=renew, args=(self._renew,), daemon=True, name=f"lease of {self.limit}"
        )
        thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            thread.join()
            if self.id is not None:
                self._return(self.id)

    def check(self) -> None:
        """Raises MachineError if another run has the slot."""
        if self.id is None:
            raise MachineError(
                f"another run was given {self.limit} while this one could not reach the server"
            )

    def take(self) -> bool:
        """Whether the slot was free and is ours now. Raises httpx.HTTPError where the server does not answer that."""
        try:
            answer = self.client.increment_concurrency_slots_with_lease(
                [self.limit], 1, "concurrency", LEASE
            ).json()
        except httpx.HTTPStatusError as error:
            if error.response.status_code == _LOCKED:
                return False
            raise
        if not answer["limits"]:
            raise UserError(
                f"{LIMIT} is {self.limit!r}, but the Prefect server has no limit of that name; `prefect gcl create"
                f" {self.limit} --limit 1` creates it"
            )
        self.id = UUID(answer["lease_id"])
        return True

    def _wait(self) -> None:
        told = False
        while True:
            try:
                if self._take_left() or self.take():
                    return
            except httpx.HTTPError as error:
                if not told:
                    get_run_logger().warning("waits for the Prefect server, which says: %s", error)
                told = True
            time.sleep(PATIENCE)

    def _take_left(self) -> bool:
        """Whether an earlier stage of this process has left the slot, which the server still holds for it."""
        left = _UNRETURNED.get(self.limit)
        if left is None or not self._lives(left):
            _UNRETURNED.pop(self.limit, None)
            return False
        self.id = _UNRETURNED.pop(self.limit)
        return True

    def _return(self, lease: UUID) -> None:
        try:
            self.client.release_concurrency_slots_with_lease(lease)
        except httpx.HTTPError:
            _UNRETURNED[self.limit] = lease

    def _renew(self) -> None:
        pause = RENEWAL
        while self.id is not None and not self.ending.wait(pause):
            try:
                self._renew_once()
                pause = RENEWAL
            except httpx.HTTPError:
                pause = PATIENCE

    def _renew_once(self) -> None:
        """Renews the lease. If it has expired, takes the slot again, or knows that another run has it."""
        assert self.id is not None
        if not self._lives(self.id) and not self.take():
            self.id = None

    def _lives(self, lease: UUID) -> bool:
        """Renews a lease; whether the server still knew it."""
        try:
            self.client.renew_concurrency_lease(lease, LEASE)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == _GONE:
                return False
            raise
        return True
