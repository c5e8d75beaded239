"""Many clients, slow clients and large pictures meet their limits, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import select
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serving.conftest import MAX_CONNECTIONS, RED, Server, encode, files, predict, running
from tests.serving.tiny import CLASS_NAMES, write


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_a_slow_body_gets_408_and_delays_nobody(server: Server) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n["
    slow = [connected(server) for _ in range(100)]
    for connection in slow:
        connection.sendall(head)
    assert predict(server, encode(RED)).status_code == 200
    answered, _, _ = select.select(slow, [], [], 0)
    assert answered == []  # the server was still waiting for all of them
    for connection in slow:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_a_connection_without_a_whole_head_is_closed(server: Server) -> None:
    silent, stopped, dripping = (connected(server) for _ in range(3))
    stopped.sendall(b"GET / HT")
    dripping.settimeout(0.2)
    for byte in b"GET /drops HTTP/1.1":
        dripping.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):  # still open after 0.2 s
            assert dripping.recv(1) == b""
            break
    else:
        pytest.fail("a client that sends byte by byte keeps its connection")
    for connection in (silent, stopped):
        assert connection.recv(1) == b""
    for connection in (silent, stopped, dripping):
        connection.close()


def test_too_many_idle_connections_are_refused_and_then_closed(server: Server) -> None:
    idle = [connected(server) for _ in range(MAX_CONNECTIONS)]
    assert predict(server, encode(RED)).status_code == 503
    for connection in idle:
        assert connection.recv(1) == b""
        connection.close()
    assert predict(server, encode(RED)).status_code == 200


def test_requests_that_arrive_together_share_a_batch(tmp_path: Path) -> None:
    pixels = {"red": [[[9, 0, 0]]], "green": [[[0, 9, 0]]], "blue": [[[0, 0, 9]]]}
    slow = write(tmp_path / "slow.onnx", repeats=4)  # the others arrive while it answers the first
    with running(tmp_path, "--model", str(slow)) as server:
        before = batches(server)
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in range(12)]
        for number, connection in enumerate(connections):
            body = json.dumps(pixels[CLASS_NAMES[number % 3]]).encode()
            connection.putrequest("POST", "/v1/predict")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-1])
        for connection in connections:  # completes all requests at nearly the same time
            connection.send(b"]")
        answers = [json.load(connection.getresponse()) for connection in connections]
        names = [answer["predictions"][0]["class_name"] for answer in answers]
        assert names == ["red", "green", "blue"] * 4
        count, images = np.subtract(batches(server), before)
        assert images == 12
        assert count <= 3
        for connection in connections:
            connection.close()


def batches(server: Server) -> tuple[float, float]:
    """The number of batches so far, and the number of images in them."""
    metrics = httpx.get(f"{server.url}/metrics").text
    count, images = (
        re.search(rf"^msdarts_batch_images_{name} (\S+)", metrics, re.M) for name in ("count", "sum")
    )
    assert count
    assert images
    return float(count[1]), float(images[1])


def test_an_answer_waits_neither_for_company_nor_for_an_acknowledgement(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            client.post("/v1/predict", files=files(encode(RED)))
            times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.035  # company: 1 s; a delayed acknowledgement: 0.04 s


def test_large_pictures_do_not_delay_small_ones(tmp_path: Path, model_file: Path) -> None:
    large, stop = encode(0, (3500, 3500), "L"), threading.Event()
    small = encode(RED, (100, 100))  # not so small that the event loop would decode it
    with running(tmp_path, "--model", str(model_file)) as server, ThreadPoolExecutor(8) as pool:
        answered = threading.Semaphore(0)

        def flood() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append(predict(server, large).status_code)
                answered.release()
            return statuses

        floods = [pool.submit(flood) for _ in range(8)]
        for _ in range(4):  # by now, large pictures are being decoded and others wait
            assert answered.acquire(timeout=60)
        times = []
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(20):
                start = time.perf_counter()
                assert client.post("/v1/predict", files=files(small)).status_code == 200
                times.append(time.perf_counter() - start)
        stop.set()
        start = time.perf_counter()
        statuses = {status for future in floods for status in future.result()}
        seconds_per_large = (time.perf_counter() - start) / 8
    assert statuses == {200}
    # A small picture that had to wait for the large ones would wait for most of the eight.
    print(f"small {1000 * statistics.median(times):.0f} ms, large {1000 * seconds_per_large:.0f} ms")
    assert statistics.median(times) < seconds_per_large


def test_a_full_queue_answers_503_with_retry_after(tmp_path: Path) -> None:
    slow = write(tmp_path / "slow.onnx", repeats=6)
    with (
        running(
            tmp_path, "--model", str(slow), "--queue-size", "2", "--queue-seconds", "0.05", "--max-batch", "1"
        ) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda _: predict(server, encode(RED)), range(16)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 16
        for answer in refused:
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["detail"] == "The server is busy; try again in a second."
        assert predict(server, encode(RED)).status_code == 200
