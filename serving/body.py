"""Receives the body of a request within limits on size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request

from serving.errors import Busy, RequestError

# A client reads the answer only after it has sent its whole body. Of a body that is too large, up to this
# many times the limit is therefore received and thrown away, so that the client gets its 413; then the
# connection is closed.
PATIENCE = 4


@dataclass(eq=False)
class Lease:
    """The part of the memory that one request holds."""

    memory: Memory
    held: int = 0

    def take(self, size: int) -> bool:
        """Takes ``size`` more bytes, or takes none and returns False if they would exceed the limit."""
        if self.memory.used + size > self.memory.limit:
            return False
        self.memory.used += size
        self.held += size
        return True

    def give_back(self) -> None:
        """Gives back all bytes; a second call does nothing."""
        self.memory.used -= self.held
        self.held = 0


@dataclass(eq=False)
class Memory:
    """Counts the bytes that the bodies of all requests hold together."""

    limit: int
    used: int = 0

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Lends memory to one request and takes it back when the context ends."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.give_back()


async def receive(request: Request, limit: int, seconds: float, lease: Lease) -> bytearray:
    """Returns the whole body. Raises RequestError if it is too large or too slow, Busy if memory is short."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise RequestError(
            415, f"Content-Encoding {encoding[:40]!r} is not supported; send the body as it is."
        )
    body = bytearray()  # grows in place: the parts and the whole never exist side by side
    size, refused = 0, False
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                refused = refused or size > limit or not lease.take(len(chunk))
                if refused:
                    body = bytearray()
                    lease.give_back()
                    if size > PATIENCE * limit:
                        break
                else:
                    body += chunk
    except TimeoutError:
        raise RequestError(
            408, f"The request took too long to arrive: {seconds:g} seconds at most."
        ) from None
    if size > limit:
        raise RequestError(413, f"The request is too large: {limit / 2**20:g} MiB at most.")
    if refused:
        raise Busy
    return body
