"""Requests that arrive together share one inference.

A single thread runs the network. While the thread is busy, jobs queue up; when it is free, it takes all of
them, up to ``max_batch`` cases (images or series). It waits for more jobs only while requests are being read, and at most
``wait_seconds``, so a lone request does not wait. Every job carries the model it was prepared for, so a swap
of models needs no pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.model import Model


@dataclass(frozen=True, eq=False)
class _Job:
    model: Model
    inputs: NDArray[Any]  # (cases, ...)
    answer: asyncio.Future[NDArray[Any]]


@dataclass(eq=False)
class Batcher:
    """Answers ``predict`` while ``run`` runs as a task."""

    max_batch: int
    wait_seconds: float
    on_batch: Callable[[int], None]  # called with the number of cases of every inference
    coming: Callable[[], int] = lambda: 0  # returns the number of requests that are being read
    _jobs: asyncio.Queue[_Job] = field(default_factory=asyncio.Queue)

    async def predict(self, model: Model, inputs: NDArray[Any]) -> NDArray[Any]:
        """Returns the model's answers to these inputs (cases, ...)."""
        job = _Job(model, inputs, asyncio.get_running_loop().create_future())
        self._jobs.put_nowait(job)
        return await job.answer

    async def run(self) -> None:
        """Answers jobs until it is cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="inference") as thread:
            while True:
                jobs = await self._gather()
                for model in dict.fromkeys(job.model for job in jobs):  # two models only during a swap
                    await self._answer(thread, model, [job for job in jobs if job.model is model])

    async def _gather(self) -> list[_Job]:
        jobs = [await self._jobs.get()]
        count = len(jobs[0].inputs)
        try:
            async with asyncio.timeout(self.wait_seconds):
                while count < self.max_batch and (self.coming() or not self._jobs.empty()):
                    jobs.append(await self._jobs.get())
                    count += len(jobs[-1].inputs)
        except TimeoutError:
            pass
        return jobs

    async def _answer(self, thread: ThreadPoolExecutor, model: Model, jobs: list[_Job]) -> None:
        def infer() -> NDArray[Any]:
            inputs = np.concatenate([job.inputs for job in jobs])
            parts = [
                inputs[start : start + self.max_batch] for start in range(0, len(inputs), self.max_batch)
            ]
            for part in parts:
                self.on_batch(len(part))
            return np.concatenate([model.predict(part) for part in parts])

        try:
            answers = await asyncio.get_running_loop().run_in_executor(thread, infer)
        except Exception as error:  # the requests of this batch get the error; the next batch is not affected
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        start = 0
        for job in jobs:
            if not job.answer.done():  # already done if the client has disconnected
                job.answer.set_result(answers[start : start + len(job.inputs)])
            start += len(job.inputs)
