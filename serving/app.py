"""The routes: what is asked under which address, and in which form it is answered."""

from __future__ import annotations

import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.routing import request_response

from serving import reference
from serving.cells import draw_cells
from serving.errors import RequestError
from serving.metrics import CountRequests, Metrics
from serving.model import Model
from serving.registry import Registry
from serving.service import Service
from serving.settings import ServeSettings

STATIC = Path(__file__).parent / "static"
# The page, the reference and their files: nothing may come from or go to another address.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# The report is one page with its styles and pictures in it, and no script.
REPORT_HEADERS = {
    **PAGE_HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
}


class Prediction(BaseModel):
    """One image's answer."""

    class_name: str
    probabilities: list[float]


class Answer(BaseModel):
    """The answer to a request, its predictions in the order of its images."""

    model_name: str
    model_version: str
    class_names: list[str]
    predictions: list[Prediction]
    milliseconds: float


class ModelInfo(BaseModel):
    """The served model: its name, what it takes and answers, and where it comes from."""

    name: str
    version: str
    class_names: list[str]
    image_shape: list[int]
    genotype: dict[str, Any]
    cells: dict[str, str]
    precision: str
    report: bool
    metadata: dict[str, str]


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class Direct(APIRoute):
    """A route that FastAPI describes, and whose endpoint takes the request and answers it without FastAPI's help.

    That help costs more than a small network's answer. What dependencies would check, the endpoint checks itself.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = request_response(self.endpoint)


_PIXELS = {
    "description": "Rows of pixels, each an integer 0..255 or a list of 1 or 3 of them; or an array of such images.",
    "type": "array",
    "items": {},
}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {
                        "type": "array",
                        "description": "PNG, JPEG or WebP files, of any size; every part of the form is one",
                        "items": {"type": "string", "format": "binary"},
                    }
                },
            }
        },
        "application/json": {
            "schema": {
                "oneOf": [
                    _PIXELS,
                    {"type": "object", "properties": {"images": {"type": "array", "items": _PIXELS}}},
                ]
            },
            "example": {"images": [[[0, 255], [255, 0]]]},
        },
    },
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is malformed."},
    401: {"model": Problem, "description": "The key is missing or wrong."},
    408: {"model": Problem, "description": "The body took too long to arrive."},
    413: {"model": Problem, "description": "Too large, too many images, or too many pixels."},
    415: {"model": Problem, "description": "Neither multipart/form-data nor application/json."},
    422: {"model": Problem, "description": "Something in it is not an image that can be read."},
    503: {"model": Problem, "description": "Busy; Retry-After says when to come back."},
}


# Where a key may be, for the description of the API.
_KEY_SCHEMES = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(auto_error=False)),
]


def create_app(model: Model, registry: Registry | None, settings: ServeSettings) -> FastAPI:
    """The server's application. ``registry`` is watched for new versions; None serves ``model`` for ever."""
    metrics = Metrics()
    service = Service(model, registry, settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # FastAPI's own pages for the API load their scripts from another address.
    app = FastAPI(
        title="MS-DARTS server",
        version="1",
        description="Classifies images with a network that was found by search.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(CountRequests, metrics=metrics)
    check_key = _key_check(settings)
    key = [*_KEY_SCHEMES, Depends(check_key)]

    @app.exception_handler(RequestError)
    async def problem(_: Request, error: RequestError) -> Response:
        # After 408 and 413 the client may still be sending; uvicorn would go on receiving.
        headers = {408: {"Connection": "close"}, 413: {"Connection": "close"}, 503: {"Retry-After": "1"}}
        return JSONResponse({"detail": str(error)}, error.status, headers.get(error.status))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        return JSONResponse({"detail": "The server made a mistake; its log says which."}, 500)

    async def predict(request: Request) -> Response:
        """Classifies one or many images of any size; they are resized and recoloured for the model."""
        start = time.perf_counter()
        await check_key(request)
        answered_by, probabilities = await service.predict(request)
        names = answered_by.class_names
        return JSONResponse(
            {
                "model_name": answered_by.name,
                "model_version": answered_by.version,
                "class_names": names,
                "predictions": [
                    {"class_name": names[row.argmax()], "probabilities": row.tolist()}
                    for row in probabilities
                ],
                "milliseconds": round((time.perf_counter() - start) * 1000, 2),
            }
        )

    app.router.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        route_class_override=Direct,
        dependencies=_KEY_SCHEMES,
        response_model=Answer,
        response_description="The answer.",
        responses=_PROBLEMS,
        openapi_extra={"requestBody": _REQUEST_BODY},
    )

    @app.get(
        "/v1/model", dependencies=key, response_description="The model.", responses={401: _PROBLEMS[401]}
    )
    async def about() -> ModelInfo:
        """The served model; its cells are drawings in SVG."""
        served = service.model
        return ModelInfo(
            name=served.name,
            version=served.version,
            class_names=list(served.class_names),
            image_shape=list(served.shape),
            genotype=dict(served.genotype),
            cells=draw_cells(served.genotype),
            precision=served.precision,
            report=service.report_run is not None,
            metadata=dict(served.metadata),
        )

    @app.get(
        "/report",
        dependencies=key,
        response_class=HTMLResponse,
        response_description="The report, a page.",
        responses={
            401: _PROBLEMS[401],
            404: {"model": Problem, "description": "It has none."},
            503: _PROBLEMS[503],
        },
    )
    async def report() -> Response:
        """How the served version was found, and how good it is; not every version has a report."""
        return HTMLResponse(await service.report(), headers=REPORT_HEADERS)

    @app.get("/healthz", response_class=PlainTextResponse, response_description="It does.")
    async def healthy() -> str:
        """Answers while the process lives."""
        return "ok\n"

    @app.get(
        "/readyz",
        response_class=PlainTextResponse,
        response_description="Yes.",
        responses={503: {"description": "Not now; Retry-After says when to ask again."}},
    )
    async def ready() -> Response:
        """Whether a prediction asked for now would be answered."""
        return (
            PlainTextResponse("ok\n")
            if service.ready()
            else PlainTextResponse("busy\n", 503, {"Retry-After": "1"})
        )

    @app.get(
        "/metrics", dependencies=key, response_class=PlainTextResponse, response_description="The metrics."
    )
    async def show_metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference.page(app.openapi()), headers=PAGE_HEADERS)

    for file in ("page.css", "page.js", "icon.svg"):
        app.add_api_route(f"/{file}", _file(file), include_in_schema=False)
    return app


def _file(name: str) -> Any:
    async def send() -> Response:
        return FileResponse(STATIC / name, headers=PAGE_HEADERS)

    return send


def _key_check(settings: ServeSettings) -> Callable[[Request], Awaitable[None]]:
    """Lets a request pass with the key in either usual header, or where none is set; raises HTTPException otherwise."""
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
