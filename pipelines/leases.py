"""Where the Prefect server keeps the leases of concurrency slots: in files, as Prefect's own storage does, but patiently.

A lease expires when its holder does not renew it for a minute. While the server is down, suspended or stopped, nobody can renew.
So after each gap in its own work the server waits for ``PATIENCE`` before it takes anybody's lease: the holders that live have
renewed by then, and their GPUs are never given to other runs.
"""

from __future__ import annotations

import math
import time
from uuid import UUID

from prefect.server.concurrency.lease_storage import filesystem

PATIENCE = (
    75.0  # seconds; a holder tries every few seconds (pipelines/gpu.py) and may be slow on a busy machine
)
GAP = 45.0  # seconds between two looks that mean an interruption; the server looks every 15


class _Attention:
    """How long the server has been looking at its leases without a gap."""

    def __init__(self) -> None:
        self.since = self.last = -math.inf

    def look(self, now: float) -> float:
        """Seconds since the first look after the last gap; ``now`` in seconds of a monotonic clock."""
        if now - self.last > GAP:
            self.since = now
        self.last = now
        return now - self.since


_ATTENTION = _Attention()  # of this process: Prefect makes a new storage for each request


class ConcurrencyLeaseStorage(filesystem.ConcurrencyLeaseStorage):
    """Prefect's storage in files, which reports no lease as expired before the server has looked for ``PATIENCE`` seconds."""

    async def read_expired_lease_ids(self, limit: int = 100) -> list[UUID]:
        if _ATTENTION.look(time.monotonic()) < PATIENCE:
            return []
        return await super().read_expired_lease_ids(limit)
