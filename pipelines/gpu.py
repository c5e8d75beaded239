"""A worker's GPU, which its runs take by turns: a lease of one slot, renewed while a stage computes.

Prefect's own ``concurrency`` ends a run when the server is away for a minute. Nobody can take the slot from such a run, because
other runs must ask the same server, and the server waits after its own outages (pipelines/leases.py). So this lease goes on, and
the stage ends only when the server says that it has given the slot to another run.
"""

from __future__ import annotations

import contextlib
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
PATIENCE = 5.0  # seconds until the next attempt when the server does not answer or the GPU is taken

_GONE, _LOCKED = httpx.codes.GONE, httpx.codes.LOCKED


@contextlib.contextmanager
def held(limit: str) -> Iterator[Callable[[], None]]:
    """Waits for the GPU and holds it within the block.

    Yields a function that raises MachineError once another run has the GPU. Raises UserError where the server has no limit of
    that name.
    """
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        lease = Lease(client, limit)
        lease.wait()
        with lease.renewed():
            yield lease.check


class Lease:
    """One slot of a limit. ``client`` raises at once when the server is away."""

    def __init__(self, client: SyncPrefectClient, limit: str):
        self.client, self.limit = client, limit
        self.id: UUID | None = None
        self.ending = threading.Event()

    def wait(self) -> None:
        """Waits until the slot is ours."""
        told = False
        while True:
            try:
                if self.take():
                    return
            except httpx.HTTPError as error:
                if not told:
                    get_run_logger().warning("waits for the Prefect server, which says: %s", error)
                told = True
            time.sleep(PATIENCE)

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

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lease within the block and returns the slot at its end."""
        thread = threading.Thread(target=self._renew, daemon=True, name=f"lease of {self.limit}")
        thread.start()
        try:
            yield
        finally:
            self.ending.set()
            thread.join()
            if self.id is not None:
                with contextlib.suppress(httpx.HTTPError):  # then the lease expires
                    self.client.release_concurrency_slots_with_lease(self.id)

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
        try:
            self.client.renew_concurrency_lease(self.id, LEASE)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _GONE:
                raise
            if not self.take():
                self.id = None

    def check(self) -> None:
        """Raises MachineError if another run has the slot."""
        if self.id is None:
            raise MachineError(
                f"another run was given {self.limit} while this one could not reach the server"
            )
