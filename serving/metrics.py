"""The metrics that Prometheus reads from ``/metrics``."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.model import Model

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one server, in their own registry so that one process can hold several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        ProcessCollector(registry=own)
        self.requests = Counter("msdarts_requests", "Answered requests", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "msdarts_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=own
        )
        self.batch_images = Histogram(
            "msdarts_batch_images", "Images or series per inference", buckets=_IMAGES, registry=own
        )
        self.queue_images = Gauge(
            "msdarts_queue_images", "Images or series waiting for inference", registry=own
        )
        self.swaps = Counter("msdarts_model_swaps", "New versions of the model", ["outcome"], registry=own)
        self.model = Gauge("msdarts_model_info", "The served model", ["name", "version"], registry=own)

    def show(self, model: Model) -> None:
        """Names ``model`` as the only served one."""
        self.model.clear()
        self.model.labels(model.name, model.version).set(1)


class CountRequests:
    """ASGI middleware that counts and times answers by route.

    Paths that clients make up count as one route, "other".
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and observes its answer."""
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
