"""Jobs that arrive together share one inference, and each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from serving.batching import Batcher


class Recorder:
    """Stands in for a model: records the sizes of its batches and answers each image with its first pixel."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered, self.free = threading.Event(), threading.Event()
        self.free.set()

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.entered.set()
        self.free.wait(10)
        self.batches.append(len(images))
        if (images == 255).any():
            raise RuntimeError("an image that breaks the network")
        return images[:, :1, 0, 0].astype(np.float32)


def pictures(*values: int) -> np.ndarray:
    return np.stack([np.full((2, 2, 1), value, np.uint8) for value in values])


async def batched(batcher: Batcher, *jobs: tuple[Any, np.ndarray]) -> list[Any]:
    task = asyncio.create_task(batcher.run())
    answers = await asyncio.gather(
        *(batcher.predict(model, images) for model, images in jobs), return_exceptions=True
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return answers


def test_every_job_gets_its_own_rows_of_the_shared_batch() -> None:
    model = Recorder()
    batcher = Batcher(8, 0.05, lambda _: None)
    answers = asyncio.run(batched(batcher, *((model, pictures(n, n + 1)) for n in range(3))))
    assert [answer.tolist() for answer in answers] == [[[0], [1]], [[1], [2]], [[2], [3]]]
    assert model.batches == [6]


def test_a_batch_never_exceeds_its_limit() -> None:
    model = Recorder()
    asyncio.run(batched(Batcher(4, 0.05, lambda _: None), *((model, pictures(*range(3))) for _ in range(5))))
    assert max(model.batches) <= 4
    assert sum(model.batches) == 15


def test_a_job_waits_for_one_that_is_being_decoded_but_for_no_other() -> None:
    async def story() -> None:
        model: Any = Recorder()
        batcher = Batcher(8, 60, lambda _: None)  # a wait without a reason would exceed the timeout below
        task = asyncio.create_task(batcher.run())
        async with asyncio.timeout(10):
            await batcher.predict(model, pictures(1))
            batcher.coming = lambda: 1
            first = asyncio.create_task(batcher.predict(model, pictures(2)))
            await asyncio.sleep(0.05)
            assert model.batches == [1]
            batcher.coming = lambda: 0
            await asyncio.gather(first, batcher.predict(model, pictures(3)))
        assert model.batches == [1, 2]
        task.cancel()

    asyncio.run(story())


def test_a_job_waits_no_longer_than_it_may() -> None:
    model = Recorder()
    batcher = Batcher(8, 0.05, lambda _: None, coming=lambda: 1)  # decoding never ends
    answers = asyncio.run(asyncio.wait_for(batched(batcher, (model, pictures(1))), 10))
    assert [answer.tolist() for answer in answers] == [[[1]]]


def test_jobs_for_two_models_are_answered_by_their_own() -> None:
    old, new = Recorder(), Recorder()
    jobs = [(old, pictures(1)), (new, pictures(2)), (old, pictures(3))]
    answers = asyncio.run(batched(Batcher(8, 0.05, lambda _: None), *jobs))
    assert [answer.tolist() for answer in answers] == [[[1]], [[2]], [[3]]]
    assert (old.batches, new.batches) == ([2], [1])


def test_a_batch_that_fails_does_not_affect_the_next() -> None:
    async def story() -> None:
        model: Any = Recorder()
        batcher = Batcher(1, 0, lambda _: None)
        task = asyncio.create_task(batcher.run())
        with pytest.raises(RuntimeError):
            await batcher.predict(model, pictures(255))
        assert (await batcher.predict(model, pictures(7))).tolist() == [[7]]
        task.cancel()

    asyncio.run(story())


def test_a_client_that_leaves_does_not_affect_the_others() -> None:
    async def story() -> None:
        model: Any = Recorder()
        model.free.clear()
        batcher = Batcher(8, 0, lambda _: None)
        task = asyncio.create_task(batcher.run())
        jobs = [asyncio.create_task(batcher.predict(model, pictures(n))) for n in (1, 2)]
        assert await asyncio.to_thread(model.entered.wait, 10)
        jobs[0].cancel()
        await asyncio.sleep(0)
        model.free.set()
        async with asyncio.timeout(10):
            assert (await jobs[1]).tolist() == [[2]]
            assert (await batcher.predict(model, pictures(3))).tolist() == [[3]]
        assert model.batches == [2, 1]
        task.cancel()

    asyncio.run(story())
