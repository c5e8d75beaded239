"""The key that clients must send if the server has one."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from serving.settings import ServeSettings

Check = Callable[[Request], Awaitable[None]]
# The two headers that may hold the key. They are declared for the OpenAPI document only; the check reads them
# itself.
SCHEMES = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(auto_error=False)),
]


def key_check(settings: ServeSettings) -> Check:
    """Makes a check that raises HTTPException if the server has a key and a request lacks it."""
    expected = settings.api_key.get_secret_value().encode() if settings.api_key else None

    async def check(request: Request) -> None:
        if expected is None:
            return
        scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
        given = request.headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), expected):
            raise HTTPException(
                401,
                "Send the server's key as X-API-Key or as a bearer token.",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


def needs(check: Check) -> list[Any]:
    """Returns the dependencies of a route that requires the key."""
    return [*SCHEMES, Depends(check)]
