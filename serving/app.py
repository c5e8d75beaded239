"""The application: all routes, and the answers to requests that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from serving.api import add_known, add_model, add_predict
from serving.errors import RequestError
from serving.keys import key_check
from serving.metrics import CountRequests, Metrics
from serving.model import Model
from serving.pages import add_pages, add_report
from serving.probes import add_probes
from serving.registry import Registry
from serving.service import Service
from serving.settings import ServeSettings


def create_app(model: Model, registry: Registry | None, settings: ServeSettings) -> FastAPI:
    """Builds the application. It starts with ``model``; a ``registry`` is watched for new versions of it."""
    metrics = Metrics()
    service = Service(model, registry, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # FastAPI's own pages for the API load their scripts from other servers.
    app = FastAPI(
        title="MS-DARTS server",
        version="1",
        description="Classifies images with a network found by architecture search.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(CountRequests, metrics=metrics)
    _answer_errors(app)
    check = key_check(settings)
    # This order is the order in the OpenAPI document and in the reference.
    add_predict(app, service, check)
    add_model(app, service, check)
    add_known(app, service, check)
    add_report(app, service, check)
    add_probes(app, service, check)
    add_pages(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def problem(_: Request, error: RequestError) -> Response:
        # After 408 and 413 the client may still be sending, and uvicorn would keep receiving.
        headers = {408: {"Connection": "close"}, 413: {"Connection": "close"}, 503: {"Retry-After": "1"}}
        return JSONResponse({"detail": str(error)}, error.status, headers.get(error.status))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # the client is gone and does not read it

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        return JSONResponse({"detail": "The server failed; its log says why."}, 500)
