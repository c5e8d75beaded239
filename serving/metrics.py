"""What Prometheus reads from ``/metrics``."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.model import Model

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The server's metrics, in a registry of their own so that several servers fit in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        ProcessCollector(registry=own)
        self.requests = Counter("msdarts_requests", "Answered requests", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "msdarts_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=own
        )
        self.batch_images = Histogram(
            "msdarts_batch_images", "Images per inference", buckets=_IMAGES, registry=own
        )
        self.queue_images = Gauge("msdarts_queue_images", "Images waiting for inference", registry=own)
        self.swaps = Counter("msdarts_model_swaps", "New versions of the model", ["outcome"], registry=own)
        self.model = Gauge("msdarts_model_info", "The served model", ["name", "version"], registry=own)

    def show(self, model: Model) -> None:
        """Makes ``model`` the only one that is named as served."""
        self.model.clear()
        self.model.labels(model.name, model.version).set(1)


class CountRequests:
    """ASGI middleware: counts and times answers under their route, not under what a client made up."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(route, str(message["status"])).inc()
                self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
            await send(message)

        await self.app(scope, receive, watched)
