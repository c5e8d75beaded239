"""Takes a prediction from request to answer, and swaps the model when a new version appears."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from numpy.typing import NDArray
from starlette.requests import Request

from serving.batching import Batcher
from serving.body import Memory, receive
from serving.errors import ModelError, RequestError
from serving.kinds import Kind, Question, Reader
from serving.metrics import Metrics
from serving.model import Model
from serving.registry import Registry
from serving.room import Room
from serving.settings import MIB, ServeSettings

log = logging.getLogger("serving")

# A version that did not load is tried again after this time, because the cause may have been the network.
RETRY_SECONDS = 60


class Service:
    """Holds the served model and everything that has a limit: memory, reading, the queue."""

    def __init__(
        self, model: Model, registry: Registry | None, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self.model = model
        self.registry = registry
        self.settings = settings
        self.metrics = metrics
        self.memory = Memory(int(settings.max_memory_mib * MIB))
        self.room = Room(settings.queue_size, settings.queue_seconds)
        self.readers: dict[
            str, Reader
        ] = {}  # name of a kind -> its reader, from when a network of it is served
        self.open = ExitStack()  # the contexts of the readers
        self.batcher = Batcher(
            settings.max_batch,
            settings.batch_wait_ms / 1000,
            metrics.batch_images.observe,
            lambda: sum(reader.soon for reader in self.readers.values()),
        )
        self.report_run: str | None = None  # the run with the served version's report, found by _watch
        self.kept_report = ("", b"")  # run, content
        self.report_lock = asyncio.Lock()
        self.tasks: list[asyncio.Task[None]] = []
        metrics.queue_images.set_function(lambda: self.room.taken)
        metrics.show(model)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers requests and watches the registry as long as the context is open."""
        with self.open:
            if self.model.kind is not None:
                self.reader(self.model.kind)
            self.tasks = [asyncio.create_task(self.batcher.run())]
            if self.registry is not None:
                self.tasks.append(asyncio.create_task(self._watch(self.registry)))
            yield
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def ready(self) -> bool:
        """Whether a request that arrives now would be answered."""
        return not self.room.full() and bool(self.tasks) and not any(task.done() for task in self.tasks)

    def reader(self, kind: Kind) -> Reader:
        """The reader for a kind of network, which starts with the first network of the kind."""
        if kind.name not in self.readers:
            self.readers[kind.name] = self.open.enter_context(kind.reader(self.settings))
        return self.readers[kind.name]

    async def predict(self, request: Request) -> tuple[Model, Question, NDArray[Any]]:
        """Returns the model that answered, the question as it saw it, and its outputs.

        Raises RequestError if something is wrong with the request.
        """
        async with self.room.hold(1):  # nothing is read while there is no room at all
            model = self.model  # this request keeps its model, even if another one is swapped in meanwhile
        kind = model.kind
        if kind is None:
            raise RequestError(
                404, f"The served network takes neither pictures nor series; see /v2/models/{model.name}."
            )
        reader = self.reader(kind)
        content_type = request.headers.get("content-type", "")
        limit = int(reader.limit(content_type) * MIB)
        with self.memory.lease() as lease:
            body = await receive(request, limit, self.settings.body_seconds, lease)
            count = reader.count(content_type, body)
            if count is None:
                question = await reader.read(kind, content_type, body)
                count = len(question.inputs)
            else:
                question = None  # read only when there is room for it
            async with self.room.hold(count):
                if question is None:
                    question = await reader.read(kind, content_type, body)
                lease.give_back()
                return model, question, await self.batcher.predict(model, question.inputs)

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
        complaint, failed, failed_at = "", None, 0.0
        while True:
            wanted = None
            try:
                named = await asyncio.to_thread(registry.current)
                wanted = named.version, named.identity
                if wanted != self._served() and (
                    wanted != failed or time.monotonic() > failed_at + RETRY_SECONDS
                ):
                    self._swap(await asyncio.to_thread(registry.load, named))
                    complaint, failed = "", None
                if wanted == self._served():
                    self.report_run = named.report_run
            except Exception as error:  # a registry can fail in any way; the old version stays served
                if wanted:
                    failed, failed_at = wanted, time.monotonic()
                    self.metrics.swaps.labels("failed").inc()
                if str(error) != complaint:
                    log.error("still serving version %s: %s", self.model.version, error)
                    if not isinstance(error, ModelError):
                        log.debug("details of this error", exc_info=error)
                complaint = str(error)
            await asyncio.sleep(self.settings.watch_seconds)

    def _served(self) -> tuple[str, str]:
        return self.model.version, self.model.identity

    def _swap(self, model: Model) -> None:
        log.info(
            "serving %s version %s in %s, after version %s",
            model.name,
            model.version,
            model.precision,
            self.model.version,
        )
        if model.kind is not None:
            self.reader(model.kind)
        self.model, self.report_run = model, None
        self.metrics.swaps.labels("done").inc()
        self.metrics.show(model)
