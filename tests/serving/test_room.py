"""Requests wait in line for room, and those that wait too long are refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from serving.errors import Busy
from serving.room import Room


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 10))


def test_requests_get_room_in_the_order_of_arrival() -> None:
    async def story() -> None:
        room, order = Room(4, 5), []

        async def request(name: str, images: int) -> None:
            async with room.hold(images):
                order.append(name)
                assert room.taken <= 4

        async with room.hold(3):
            # The second fits but does not overtake the first, which would otherwise wait for ever.
            waiting = [asyncio.create_task(request(name, n)) for name, n in (("large", 4), ("small", 1))]
            await asyncio.sleep(0.01)
            assert (order, room.full()) == ([], True)
        await asyncio.gather(*waiting)
        assert (order, room.taken, room.full()) == (["large", "small"], 0, False)

    run(story)


def test_a_request_larger_than_the_room_gets_all_of_it() -> None:
    async def story() -> None:
        room = Room(4, 0.01)
        async with room.hold(9):
            with pytest.raises(Busy):
                await room.hold(1).__aenter__()
        async with room.hold(1):
            with pytest.raises(Busy):
                await room.hold(9).__aenter__()

    run(story)


@pytest.mark.parametrize("end", ["timeout", "cancel", "both"])
def test_a_request_that_leaves_the_line_lets_the_next_one_in(end: str) -> None:
    async def story() -> None:
        room = Room(4, 0.05 if end != "cancel" else 5)

        async def request(images: int) -> None:
            async with room.hold(images):
                pass

        async with room.hold(2):
            first = asyncio.create_task(request(4))
            await asyncio.sleep(0)
            room.seconds = 5  # for the second only
            second = asyncio.create_task(request(2))
            await asyncio.sleep(0)
            if end != "timeout":
                await asyncio.sleep(0.0499 if end == "both" else 0)
                first.cancel()
            await second
            with contextlib.suppress(asyncio.CancelledError), pytest.raises(Busy):
                await first
        assert room.taken == 0

    run(story)


def test_a_request_admitted_while_it_gives_up_takes_no_room() -> None:
    async def story() -> None:
        room = Room(1, 5)

        async def request() -> None:
            async with room.hold(1):
                raise AssertionError("it was cancelled before it entered")

        async with room.hold(1):
            task = asyncio.create_task(request())
            await asyncio.sleep(0)
        task.cancel()  # after the block above has admitted it, and before it ran
        with pytest.raises(asyncio.CancelledError):
            await task
        assert room.taken == 0

    run(story)
