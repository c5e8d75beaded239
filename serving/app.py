"""The application: all routes, and the answers to requests that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving.api import add_known, add_model, add_predict
from serving.errors import RequestError
from serving.hosts import AllowedHosts
from serving.keys import key_check
from serving.metrics import CountRequests, Metrics
from serving.model import Model
from serving.open_inference import PREFIX, Inference, add_open_inference
from serving.pages import add_pages, add_report
from serving.probes import add_probes
from serving.registry import Registry
from serving.service import Service
from serving.settings import ServeSettings


def create_app(model: Model, registry: Registry | None, settings: ServeSettings) -> FastAPI:
    """Builds the application. It starts with ``model``; a ``registry`` is watched for new versions of it."""
    metrics = Metrics()
    service = Service(model, registry, settings, metrics)
    inference = Inference(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running(), inference.running():
            yield

    # FastAPI's own pages for the API load their scripts from other servers.
    app = FastAPI(
        title="MS-DARTS server",
        version="1",
        description="Tells what is in images, or forecasts series, with a network found by architecture search.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(AllowedHosts, listening=settings.host, allowed=settings.allowed_hosts)
    app.add_middleware(CountRequests, metrics=metrics)
    _answer_errors(app)
    check = key_check(settings)
    # This order is the order in the OpenAPI document and in the reference.
    add_predict(app, service, check)
    add_model(app, service, check)
    add_known(app, service, check)
    add_report(app, service, check)
    add_probes(app, service, check)
    add_open_inference(app, inference, check)
    add_pages(app)
    return app


def _failed(
    request: Request, status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a request that fails. The Open Inference Protocol calls the sentence ``error``."""
    key = "error" if f"{request.url.path}/".startswith(f"{PREFIX}/") else "detail"
    return JSONResponse({key: sentence}, status, headers)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def problem(request: Request, error: RequestError) -> Response:
        # After 408 and 413 the client may still be sending, and uvicorn would keep receiving.
        headers = {408: {"Connection": "close"}, 413: {"Connection": "close"}, 503: {"Retry-After": "1"}}
        return _failed(request, error.status, str(error), headers.get(error.status))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return _failed(request, error.status_code, error.detail, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # the client is gone and does not read it

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        return _failed(request, 500, "The server failed; its log says why.")
