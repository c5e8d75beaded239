"""Routes for the machines around the server: is it alive, is it ready, and what are its metrics."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.keys import Check, needs
from serving.service import Service


def add_probes(app: FastAPI, service: Service, check: Check) -> None:
    """``GET /healthz``, ``GET /readyz`` and ``GET /metrics``."""

    @app.get("/healthz", response_class=PlainTextResponse, response_description="The process is alive.")
    async def healthy() -> str:
        """Answers as long as the process is alive."""
        return "ok\n"

    @app.get(
        "/readyz",
        response_class=PlainTextResponse,
        response_description="The server is ready.",
        responses={503: {"description": "The server is not ready; Retry-After says when to ask again."}},
    )
    async def ready() -> Response:
        """Says whether a prediction requested now would be answered."""
        return (
            PlainTextResponse("ok\n")
            if service.ready()
            else PlainTextResponse("busy\n", 503, {"Retry-After": "1"})
        )

    @app.get(
        "/metrics",
        dependencies=needs(check),
        response_class=PlainTextResponse,
        response_description="The metrics in Prometheus' text format.",
    )
    async def show_metrics() -> Response:
        """Lists the metrics for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
