"""What the service limits by itself: work on the event loop, and memory."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from serving.body import Memory
from serving.decoding import LOOP
from serving.errors import Busy
from serving.images import read_images
from serving.metrics import Metrics
from serving.model import load
from serving.service import Service
from serving.settings import read_settings
from tests.serving.conftest import saved
from tests.serving.tiny import network


def test_only_tiny_requests_are_decoded_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(network().SerializeToString(), "tiny", "1", 1)
    decoded: list[tuple[str, bool]] = []  # the thread, and whether it returned images

    def watched(*arguments: Any) -> Any:
        images = read_images(*arguments)
        decoded.append((threading.current_thread().name.partition("_")[0], images is not None))
        return images

    def form(content: bytes) -> tuple[str, bytes]:
        return "multipart/form-data; boundary=x", b"--x\r\n\r\n" + content + b"\r\n--x--\r\n"

    kind = model.kind
    assert kind is not None

    async def threads(content_type: str, body: bytes) -> list[tuple[str, bool]]:
        decoded.clear()
        service = Service(model, None, read_settings({}, None), Metrics())
        async with service.running():
            images = (await service.reader(kind).read(kind, content_type, bytearray(body))).inputs
            assert images.shape == (1, 8, 8, 3)
        return list(decoded)

    monkeypatch.setattr("serving.decoding.read_images", watched)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    flat = form(saved(Image.new("L", (500, 500))))
    assert len(flat[1]) < LOOP.body
    assert asyncio.run(threads("application/json", b"[[0]]")) == [("MainThread", True)]
    assert asyncio.run(threads(*flat)) == [("MainThread", False), ("decode", True)]  # few bytes, many pixels
    assert asyncio.run(threads(*form(saved(Image.fromarray(noise))))) == [("decode", True)]  # many bytes


def test_a_full_queue_refuses_a_request_before_its_body_is_read() -> None:
    async def story() -> None:
        model = load(network().SerializeToString(), "tiny", "1", 1)
        settings = read_settings({"queue_size": "1", "queue_seconds": "0.01"}, None)
        service = Service(model, None, settings, Metrics())
        service.room.taken = 1

        async def body() -> Any:
            raise AssertionError("the body is read")

        with pytest.raises(Busy):
            await service.predict(Request({"type": "http", "method": "POST", "headers": []}, body))

    asyncio.run(story())


def test_memory_is_given_back_once() -> None:
    memory = Memory(10)
    with memory.lease() as first, memory.lease() as second:
        assert first.take(6)
        assert not second.take(5)
        assert second.take(4)
        first.give_back()
        assert memory.used == 4
    assert memory.used == 0
