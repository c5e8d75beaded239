"""Takes a prediction from request to probabilities, and swaps the model when a new version appears."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.requests import Request

from serving.batching import Batcher
from serving.body import Memory, receive
from serving.errors import Busy, ModelError, RequestError
from serving.images import Limits, read_images
from serving.metrics import Metrics
from serving.model import Images, Model, Probabilities
from serving.registry import Registry
from serving.settings import MIB, ServeSettings

log = logging.getLogger("serving")

# A version that did not load is tried again after this time, because the cause may have been the network.
RETRY_SECONDS = 60
# A body with at most this many bytes and pixels is decoded on the event loop. That takes 0.1 ms, and handing
# it to a thread would take as long. The worst case takes 5 to 6 ms, because the text chunks of a PNG can
# inflate a thousandfold.
INLINE = 2048
# Requests with more pixels than this are decoded one after the other in their own thread. Each takes some
# tenths of a second, and requests with small pictures should not wait for them.
SMALL_PIXELS = 2_000_000
LARGE_WAITING = 16


class Service:
    """Holds the served model and everything that has a limit: memory, decoding threads, the queue."""

    def __init__(
        self, model: Model, registry: Registry | None, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.model = model
        self.registry = registry
        self.settings = settings
        self.metrics = metrics
        self.memory = Memory(int(settings.max_memory_mib * MIB))
        self.limits = Limits(settings.max_images, settings.max_pixels)
        self.batcher = Batcher(
            settings.max_batch,
            settings.batch_wait_ms / 1000,
            settings.queue_size,
            metrics.batch_images.observe,
        )
        self.large = 0  # requests that the thread for large ones decodes or has waiting
        self.report_run: str | None = None  # the run with the served version's report, found by _watch
        self.kept_report = ("", b"")  # run, content
        self.report_lock = asyncio.Lock()
        self.tasks: list[asyncio.Task[None]] = []
        metrics.queue_images.set_function(lambda: self.batcher.waiting)
        metrics.show(model)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers requests and watches the registry as long as the context is open."""
        with (
            ThreadPoolExecutor(self.settings.decode_threads, thread_name_prefix="decode") as self.lane,
            ThreadPoolExecutor(1, thread_name_prefix="decode-large") as self.large_lane,
        ):
            self.tasks = [asyncio.create_task(self.batcher.run())]
            if self.registry is not None:
                self.tasks.append(asyncio.create_task(self._watch(self.registry)))
            yield
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def ready(self) -> bool:
        """Whether a request that arrives now would be answered."""
        return not self.batcher.full() and bool(self.tasks) and not any(task.done() for task in self.tasks)

    async def predict(self, request: Request) -> tuple[Model, Images, Probabilities]:
        """Returns the model that answered, the images as it saw them, and the answer.

        Raises RequestError if something is wrong with the request.
        """
        if self.batcher.full():
            raise Busy
        model = self.model  # this request keeps its model, even if another one is swapped in meanwhile
        content_type = request.headers.get("content-type", "")
        json = content_type.partition(";")[0].strip().lower() == "application/json"
        limit = self.settings.max_json_mib if json else self.settings.max_body_mib
        with self.memory.lease() as lease:
            body = await receive(request, int(limit * MIB), self.settings.body_seconds, lease)
            images = await self._decode(content_type, body, model)
        return model, images, await self.batcher.predict(model, images)

    async def _decode(self, content_type: str, body: bytes, model: Model) -> Images:
        loop = asyncio.get_running_loop()
        task = (content_type, body, model.shape, self.limits)
        if self.batcher.coming >= self.settings.queue_size:
            raise Busy
        if len(body) <= INLINE and (images := read_images(*task, INLINE, model.pixel_scale)) is not None:
            return images
        self.batcher.coming += 1
        try:
            images = await loop.run_in_executor(
                self.lane, read_images, *task, SMALL_PIXELS, model.pixel_scale
            )
        finally:
            self.batcher.coming -= 1
        if images is None:
            if self.large >= LARGE_WAITING:
                raise Busy
            self.large += 1
            try:
                images = await loop.run_in_executor(
                    self.large_lane, read_images, *task, self.limits.pixels, model.pixel_scale
                )
            finally:
                self.large -= 1
        assert images is not None  # the last call has the limit above which requests are refused
        return images

    async def report(self) -> bytes:
        """Returns the served version's report. Raises RequestError if it has none or the download fails."""
        async with self.report_lock:  # one download at a time
            run = self.report_run
            if run is None or self.registry is None:
                raise RequestError(404, "The served model has no report.")
            if run != self.kept_report[0]:
                try:
                    self.kept_report = run, await asyncio.to_thread(self.registry.report, run)
                except Exception as error:  # a registry can fail in any way
                    log.error("%s", error)
                    raise RequestError(
                        503, "The report cannot be fetched from the registry; try again later."
                    ) from None
            return self.kept_report[1]

    async def _watch(self, registry: Registry) -> None:
        """Looks up the alias again and again, and serves a new version as soon as it has answered."""
        complaint, failed, failed_at = "", "", 0.0
        while True:
            version = ""
            try:
                named = await asyncio.to_thread(registry.current)
                version = named.version
                if version != self.model.version and (
                    version != failed or time.monotonic() > failed_at + RETRY_SECONDS
                ):
                    self._swap(await asyncio.to_thread(registry.load, version))
                    complaint, failed = "", ""
                if version == self.model.version:
                    self.report_run = named.report_run
            except Exception as error:  # a registry can fail in any way; the old version stays served
                if version:
                    failed, failed_at = version, time.monotonic()
                    self.metrics.swaps.labels("failed").inc()
                if str(error) != complaint:
                    log.error("still serving version %s: %s", self.model.version, error)
                    if not isinstance(error, ModelError):
                        log.debug("details of this error", exc_info=error)
                complaint = str(error)
            await asyncio.sleep(self.settings.watch_seconds)

    def _swap(self, model: Model) -> None:
        log.info(
            "serving %s version %s in %s, after version %s",
            model.name,
            model.version,
            model.precision,
            self.model.version,
        )
        self.model, self.report_run = model, None
        self.metrics.swaps.labels("done").inc()
        self.metrics.show(model)
