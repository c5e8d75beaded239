"""Receiving a request's body within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request

from serving.errors import Busy, RequestError

# A client hears the answer only when it has finished sending, so up to this many times the limit is received
# and thrown away before a body that is too large ends the connection.
PATIENCE = 4


@dataclass(eq=False)
class Lease:
    """One request's share of the memory."""

    memory: Memory
    held: int = 0

    def take(self, size: int) -> bool:
        """Takes that many bytes more, or none and False where the memory of all is used up."""
        if self.memory.used + size > self.memory.limit:
            return False
        self.memory.used += size
        self.held += size
        return True

    def give_back(self) -> None:
        """Ends the lease; a second time does nothing."""
        self.memory.used -= self.held
        self.held = 0


@dataclass(eq=False)
class Memory:
    """The bytes that the bodies of all requests may hold together."""

    limit: int
    used: int = 0

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """A share that is given back at the end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.give_back()


async def receive(request: Request, limit: int, seconds: float, lease: Lease) -> bytes:
    """The whole body. Raises RequestError where it is too large or too slow, Busy where memory is short."""
    chunks: list[bytes] = []
    size, refused = 0, False
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                refused = refused or size > limit or not lease.take(len(chunk))
                if refused:
                    chunks.clear()
                    lease.give_back()
                    if size > PATIENCE * limit:
                        break
                else:
                    chunks.append(chunk)
    except TimeoutError:
        raise RequestError(
            408, f"The request took too long to arrive: {seconds:g} seconds at most."
        ) from None
    if size > limit:
        raise RequestError(413, f"The request is too large: {limit / 2**20:g} MiB at most.")
    if refused:
        raise Busy
    return b"".join(chunks)
