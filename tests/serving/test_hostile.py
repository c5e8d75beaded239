"""Files that are small for what they cost are refused, or decoded where they harm nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from serving.decoding import Decoder, Decoding
from serving.errors import RequestError
from serving.headers import read_header
from serving.images import Limits, read_images
from serving.pictures import Pictures
from tests.serving import hostile
from tests.serving.conftest import RED, encode, files, running

KIND = "multipart/form-data; boundary=x"
LIMITS = Limits(images=4, pixels=30_000_000)
TARGET = Pictures((8, 8, 3), ("red", "green", "blue"), (0, 65535))
TASK: dict[str, Any] = {
    "content_type": KIND, "shape": (8, 8, 3), "scale": (0, 65535), "images": 4, "pixels": 30_000_000, "most": None,
}  # fmt: skip


def form(*contents: bytes) -> bytearray:
    return bytearray(b"".join(b"--x\r\n\r\n" + content + b"\r\n" for content in contents) + b"--x--\r\n")


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans": (lambda: hostile.scans(41, (99, 99)), "a JPEG with more than 40 scans"),
    "scans of an MPO": (
        lambda: hostile.multi_picture(hostile.scans(41, (99, 99))),
        "a JPEG with more than 40 scans",
    ),
    "segments": (lambda: hostile.segments(1010), "a JPEG with more than 1004 segments"),
    "fill": (lambda: hostile.fill(1025), "a JPEG with more than 1024 fill bytes"),
    "junk": (lambda: hostile.jpeg()[:2] + b"\xff\xe5\x00\x02" + bytes(1025), "more than 1024 fill bytes"),
    "end before the frame": (lambda: b"\xff\xd8\xff\xd9" + b"\xff\xd9" * 1010, "more than 1001 segments"),
    "chunks": (lambda: hostile.chunks(1020), "a PNG with more than 1012 chunks"),
    "bytes": (lambda: hostile.jpeg() + bytes(5 * 2**20), r"5,243,\d+ bytes for 64 pixels"),
    "canvas": (lambda: hostile.webp_canvas((16_383, 16_383)), "Too many pixels"),
    "two sizes": (
        lambda: (content := hostile.jpeg())[:2] + b"\xff\xc0\x00\x11\x08\x7f\xff\x7f\xff" + bytes(10) + content[2:],
        "Too many pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_costs_more_than_a_picture_is_refused_before_pillow_sees_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, sentence = REFUSED[name]
    monkeypatch.setattr("PIL.Image.open", None)
    with pytest.raises(RequestError, match=sentence):
        read_images(KIND, form(make()), (8, 8, 3), LIMITS, None)


@pytest.mark.parametrize(
    "name", ["plain", "with scans", "with a film behind it", "with a preview", "with restarts"]
)
def test_an_ordinary_jpeg_is_not_mistaken_for_one_with_many_scans(name: str) -> None:
    content = {
        "plain": hostile.jpeg,
        "with scans": lambda: hostile.jpeg(progressive=True),
        "with a film behind it": lambda: hostile.jpeg() + b"\xff\xda\x00\x02" * 99,
        "with a preview": lambda: (
            (content := hostile.jpeg())[:2] + b"\xff\xe1\x01\x92" + b"\xff\xda\x00\x02" * 100 + content[2:]
        ),
        "with restarts": lambda: hostile.noise((200, 200), "JPEG", restart_marker_blocks=1),
    }[name]()
    images = read_images(KIND, form(content), (8, 8, 1), LIMITS, None)
    assert images is not None


def test_a_cheap_picture_is_told_from_an_expensive_one_before_it_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("PIL.Image.open", None)
    for content in (hostile.text(4), hostile.scans(40, (300, 300)), encode(RED, kind="GIF")):
        assert read_images(KIND, form(content), (8, 8, 3), LIMITS, 2_000_000) is None
    header = read_header(encode(RED, (32, 32)), "")
    assert header is not None
    assert header.work == 32 * 32


@pytest.fixture
def decoder(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    made = Decoder(*getattr(request, "param", (0.3, 64)), niceness=0)
    made.start()
    yield made
    made.end()


def test_a_decoder_is_ended_after_its_time_and_replaced(decoder: Decoder) -> None:
    assert np.array_equal(decoder.decode(TASK, form(encode(RED)))[0, 0, 0], RED)  # type: ignore[index]
    with pytest.raises(TimeoutError):
        decoder.decode(TASK, form(hostile.plain_numbers(4_000_000)))
    for _ in range(2):
        assert np.array_equal(decoder.decode(TASK, form(encode(RED)))[0, 0, 0], RED)  # type: ignore[index]


def test_a_decoder_that_is_killed_is_replaced(decoder: Decoder) -> None:
    assert decoder.decode(TASK, form(encode(RED))) is not None
    for kill in (psutil.Process(decoder._process.pid).children()[0].kill, decoder._kill):
        kill()  # while it has no task
        time.sleep(0.2)
        with pytest.raises(TimeoutError):
            decoder.decode(TASK, form(encode(RED)))
        assert decoder.decode(TASK, form(encode(RED))) is not None


@pytest.mark.parametrize("decoder", [(5, 32)], indirect=True)
def test_a_decoder_has_a_limit_on_memory(decoder: Decoder) -> None:
    assert decoder.decode(TASK, form(hostile.flat((2000, 2000), "RGB"))) is not None
    with pytest.raises(RequestError, match="Image 1 needs too much memory to decode") as error:
        decoder.decode(TASK, form(hostile.flat((4000, 4000), "RGB")))
    assert error.value.status == 413
    assert decoder.decode(TASK, form(hostile.flat((2000, 2000), "RGB"))) is not None


def test_a_request_goes_where_it_can_be_stopped() -> None:
    asked: list[str] = []

    async def where(content: bytes) -> list[str]:
        asked.clear()
        with Decoding(LIMITS, 1, seconds=2, mib=64) as decoding:
            for name in ("_smaller", "_larger"):
                decoder = getattr(decoding, name)
                decode = decoder.decode
                decoder.decode = lambda *task, name=name, decode=decode: asked.append(name) or decode(*task)
            images = await decoding.decode(KIND, form(content), TARGET)
        assert images.shape == (1, 8, 8, 3)
        return list(asked)

    assert asyncio.run(where(encode(RED, (100, 100)))) == []
    assert asyncio.run(where(hostile.noise((200, 200), "PNG"))) == ["_smaller"]  # many bytes
    assert asyncio.run(where(encode(RED, kind="GIF"))) == ["_smaller"]  # nobody knows what it costs
    assert asyncio.run(where(hostile.flat((3000, 3000), "L"))) == ["_smaller", "_larger"]  # many pixels
    assert asyncio.run(where(hostile.noise((700, 700), "PNG"))) == ["_larger"]


def memory(process: psutil.Process) -> float:
    """MiB of a process and all below it; what they share counts once."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # a decoder that is being replaced
            total += one.memory_full_info().pss
    return total / 2**20


def send(port: int, body: bytes) -> bytes:
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return connection.recv(100)


ATTACKS = [
    "multi-picture JPEG with thousands of scans",
    "JPEG with four million segments",
    "JPEG with 15 million fill bytes",
    "PNG with 1.2 million chunks",
    "PNG with text that inflates",
    "GIF with three million comments",
]
if "MSDARTS_FUZZ" in os.environ:
    ATTACKS = list(hostile.FILES)


@pytest.mark.slow
def test_two_hostile_files_at_once_delay_nobody(tmp_path: Path, model_file: Path) -> None:
    waits: dict[str, list[float]] = {}
    most = 0.0
    with (
        running(tmp_path, "--model", str(model_file), "--decode-seconds", "1") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(2) as attackers,
    ):
        for _ in range(20):
            client.post("/v1/predict", files=files(encode(RED, (32, 32))))
        idle = memory(server.process)
        for name in ATTACKS:
            body = bytes(form(hostile.FILES[name]()))
            attacks = [attackers.submit(send, server.port, body) for _ in range(2)]
            while not all(attack.done() for attack in attacks):
                start = time.perf_counter()
                answer = client.post("/v1/predict", files=files(encode(RED, (32, 32))))
                waits.setdefault(name, []).append(time.perf_counter() - start)
                most = max(most, memory(server.process) - idle)
                assert answer.status_code == 200
            assert {int(attack.result().split()[1]) for attack in attacks} <= {200, 413, 422}
    for name, of_kind in waits.items():
        print(f"{1000 * np.percentile(of_kind, 99):5.0f} ms for 99% of {len(of_kind):4} requests: {name}")
    print(f"memory +{most:.0f} MiB")
    assert max(map(max, waits.values())) < 2
    assert most < 200
