"""uvicorn's HTTP protocol, plus limits on what one connection may cost.

Without them, clients that connect and send nothing, or never read, would keep their connections for ever; a body in
chunks of one byte would cost a thousand times the work of its size; and at the limit on connections, the machines around
the server could no longer ask whether it is alive.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.errors import Busy

PROBES = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
# Connections above the limit, which only probes may use.
PROBE_CONNECTIONS = 32
PROBE_HEAD_SECONDS = 1
# h11 has a limit on an incomplete head, but reads a complete one of any size.
HEAD_BYTES = 16 * 1024
# A body may come in this many pieces, and one more per so many bytes. Clients send pieces of at least a kilobyte.
PIECES, BYTES_PER_PIECE = 100, 256
# Of an answer that does not fit into the system's buffers, a client must read this much per ``write_seconds``.
READ_BYTES = 16 * 1024


@dataclass(frozen=True)
class ConnectionLimits:
    """The most that a connection may cost."""

    connections: int
    head_seconds: float
    write_seconds: float


class _Strict(h11.Connection):
    """Refuses requests that are likely to be attacks, although h11 can read them."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                # A proxy before this server may have believed the other one, and taken the rest for a request.
                raise h11.RemoteProtocolError("Content-Length together with Transfer-Encoding")
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > PIECES + self._bytes // BYTES_PER_PIECE:
                raise h11.RemoteProtocolError("too many small chunks")
        return event


class BoundedProtocol(H11Protocol):
    """Closes a connection that does not send the whole head of its next request within ``head_seconds``.

    The time starts when the connection is made and, for every later request, with its first byte. Also closes a connection
    that does not read its answers.
    """

    limits = ConnectionLimits(500, 10, 10)
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _extra = False  # above the limit on connections
    _ended = False  # the client sends nothing more

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Strict(h11.SERVER, HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Writing is then paused exactly when something waits to be read by the client.
        transport.set_write_buffer_limits(high=0)
        above = len(self.connections) - self.limits.connections
        if above > PROBE_CONNECTIONS:
            transport.abort()
        elif above > 0:
            self._extra, self.app = True, only_probes(self.app)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        if self._in_request():
            super().data_received(data)
        else:
            for start in range(0, len(data), HEAD_BYTES):
                if not self.transport.is_closing():
                    super().data_received(data[start : start + HEAD_BYTES])
        self._watch_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        # A client may end its side and still wait for the answers to what it has sent.
        self._ended = True
        return self._in_request() and not self.cycle.more_body

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if (self._ended or self._extra) and not self._in_request():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # an answer has begun, or even ended
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._watch_reader(self.transport.get_write_buffer_size() + READ_BYTES)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_timer = _stopped(self._write_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer, self._write_timer = _stopped(self._head_timer), _stopped(self._write_timer)
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self._in_request():
            self._head_timer = _stopped(self._head_timer)
        elif (
            self._head_timer is None
        ):  # later bytes do not restart the timer, so sending slowly does not help
            seconds = PROBE_HEAD_SECONDS if self._extra else self.limits.head_seconds
            self._head_timer = self.loop.call_later(seconds, self._expire)

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expire(self) -> None:
        self._head_timer = None
        if not self._in_request() and not self.transport.is_closing():
            self.transport.close()

    def _watch_reader(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left > before - READ_BYTES:
            self.transport.abort()
        else:
            self._write_timer = self.loop.call_later(self.limits.write_seconds, self._watch_reader, left)


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def only_probes(app: ASGIApp) -> ASGIApp:
    """Answers whether the server is alive and ready; 503 to everything else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PROBES:
            await JSONResponse({"detail": str(Busy())}, 503, {"Retry-After": "1", "Connection": "close"})(
                scope, receive, send
            )
        else:
            await app(scope, receive, send)

    return answer


def bounded(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """Makes a protocol class with these limits. uvicorn creates the instances, so the limits are on the class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
