"""The names under which the server may be asked.

A page from another origin may resolve its own name to the server's address, and would then be allowed to read the answers
(DNS rebinding). Its requests have its own name in the header Host. An address in this header is no danger, because
nobody else can make it theirs.
"""

from __future__ import annotations

import ipaddress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class AllowedHosts:
    """ASGI middleware that answers 421 to requests for other hosts. HTTP/1.0 needs no Host."""

    def __init__(self, app: ASGIApp, listening: str, allowed: tuple[str, ...]) -> None:
        self.app = app
        self.names = LOOPBACK | {listening.lower()} | {name.lower() for name in allowed}
        self.addresses = listening not in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or refuses it."""
        if scope["type"] == "http" and "*" not in self.names:
            host = next((value for name, value in scope["headers"] if name == b"host"), None)
            if host is not None and not self._allowed(_name(host.decode("latin-1"))):
                sentence = "This server does not answer for this host; its setting serve.allowed_hosts names those it does."
                await JSONResponse({"detail": sentence}, 421, {"Connection": "close"})(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _allowed(self, name: str) -> bool:
        return name in self.names or (self.addresses and _is_address(name))


def _name(host: str) -> str:
    """The name or address in a header Host, without the port: ``[::1]:8000`` -> ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
