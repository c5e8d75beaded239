"""The clients of ``benchmarks/serve_load.py``: one connection each, the next request as soon as the last one is answered.

A plain protocol, because the clients share the machine with the server: streams cost twice the processor time, and then the
clients would be measured.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_PATIENCE = 300.0  # seconds that a whole run may take


class Answers:
    """What all clients of a run were answered."""

    def __init__(self) -> None:
        self.latencies: list[float] = []  # seconds, of the requests that were answered with 200
        self.failed = 0


class Client(asyncio.Protocol):
    """Sends ``request`` as long as ``left`` has another number. ``ended`` is done when it has the last answer."""

    def __init__(self, request: bytes, left: Iterator[int], answers: Answers):
        self.request, self.left, self.answers = request, left, answers
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = bytearray()
        self.expected = 0  # bytes of the answer, once its head is there
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.expected and (end := self.received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.received, 0, end)
            assert length is not None, "the answer has no length"
            self.expected = end + 4 + int(length[1])
        if self.expected and len(self.received) >= self.expected:
            if self.received.startswith(b"HTTP/1.1 200 "):
                self.answers.latencies.append(time.perf_counter() - self.sent)
            else:
                self.answers.failed += 1
            self.received.clear()
            self.expected = 0
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _send(self) -> None:
        if next(self.left, None) is None:
            self.ended.set_result(None)
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(self.request)


async def send_all(port: int, request: bytes, clients: int, left: Iterator[int]) -> Answers:
    """Sends one request per number in ``left`` from so many clients to loopback. Raises OSError or TimeoutError."""
    answers = Answers()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_PATIENCE):
        made = [
            (await loop.create_connection(lambda: Client(request, left, answers), "127.0.0.1", port))[1]
            for _ in range(clients)
        ]
        await asyncio.gather(*(client.ended for client in made))
    return answers
