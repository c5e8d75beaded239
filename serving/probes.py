"""What the machines around the server ask: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.keys import Check, needs
from serving.service import Service


def add_probes(app: FastAPI, service: Service, check: Check) -> None:
    """``GET /healthz``, ``GET /readyz`` and ``GET /metrics``."""

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
        "/metrics",
        dependencies=needs(check),
        response_class=PlainTextResponse,
        response_description="The metrics.",
    )
    async def show_metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
