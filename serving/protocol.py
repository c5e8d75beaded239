"""uvicorn's HTTP protocol, plus a limit on the time that a client may take for the head of a request.

Without this limit, clients that connect and send nothing would keep their connections for ever, until none is
left for others.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedProtocol(H11Protocol):
    """Closes a connection that does not send the whole head of its next request within ``head_seconds``.

    The time starts when the connection is made and, for every later request, with its first byte.
    """

    head_seconds: float = 10
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self._in_request():
            self._stop()
        elif self._timer is None:  # later bytes do not restart the timer, so sending slowly does not help
            self._timer = self.loop.call_later(self.head_seconds, self._expire)

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if not self._in_request() and not self.transport.is_closing():
            self.transport.close()


def bounded(head_seconds: float) -> type[BoundedProtocol]:
    """Makes a protocol class with this limit. uvicorn creates the instances, so the limit is on the class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"head_seconds": head_seconds})
