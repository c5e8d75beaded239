"""Many clients, slow clients and large pictures: what bounds them, and that nobody else waits for them."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serving.conftest import (
    RED,
    Server,
    encode,
    files,
    predict,
    running,
)
from tests.serving.tiny import CLASS_NAMES, write


def test_a_slow_body_is_given_up_and_holds_up_nobody(server: Server) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n["
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(100)]
    for connection in slow:
        connection.sendall(head)
    start = time.perf_counter()
    assert predict(server, encode(RED)).status_code == 200
    assert time.perf_counter() - start < 0.9  # sooner than the slow ones are given up
    for connection in slow:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
def test_a_connection_that_begins_no_request_is_closed(server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_idle_connections_without_number_are_refused_and_then_closed(server: Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(600)]
    assert predict(server, encode(RED)).status_code in (200, 503)  # 503 while all connections are taken
    for connection in idle:
        assert connection.recv(1) == b""
        connection.close()
    assert predict(server, encode(RED)).status_code == 200


def test_requests_that_arrive_together_share_a_batch(tmp_path: Path, model_file: Path) -> None:
    pixels = {"red": [[[9, 0, 0]]], "green": [[[0, 9, 0]]], "blue": [[[0, 0, 9]]]}
    with running(tmp_path, "--model", str(model_file), "--batch-wait-ms", "1000") as server:
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in range(12)]
        for number, connection in enumerate(connections):
            body = json.dumps(pixels[CLASS_NAMES[number % 3]]).encode()
            connection.putrequest("POST", "/v1/predict")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-1])
        for connection in connections:  # all are complete at nearly the same time
            connection.send(b"]")
        answers = [json.load(connection.getresponse()) for connection in connections]
        names = [answer["predictions"][0]["class_name"] for answer in answers]
        assert names == ["red", "green", "blue"] * 4
        metrics = httpx.get(f"{server.url}/metrics").text
        batches = re.search(r"^msdarts_batch_images_count (\S+)", metrics, re.M)
        images = re.search(r"^msdarts_batch_images_sum (\S+)", metrics, re.M)
        assert batches
        assert images
        assert float(images[1]) == 12
        assert float(batches[1]) <= 6
        for connection in connections:
            connection.close()


def test_an_answer_waits_neither_for_company_nor_for_the_network_stack(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            client.post("/v1/predict", files=files(encode(RED)))
            times.append(time.perf_counter() - start)
    assert sorted(times)[15] < 0.035  # a delayed acknowledgement alone takes 0.04


def test_large_pictures_do_not_hold_up_small_ones(tmp_path: Path, model_file: Path) -> None:
    large, stop = encode(0, (4900, 5000)), threading.Event()
    with running(tmp_path, "--model", str(model_file)) as server, ThreadPoolExecutor(8) as pool:

        def flood() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append(predict(server, large).status_code)
            return statuses

        floods = [pool.submit(flood) for _ in range(8)]
        time.sleep(0.5)
        times = []
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(20):
                start = time.perf_counter()
                assert client.post("/v1/predict", files=files(encode(RED))).status_code == 200
                times.append(time.perf_counter() - start)
        stop.set()
        large_alone = time.perf_counter()
        statuses = [status for future in floods for status in future.result()]
        large_alone = (time.perf_counter() - large_alone) / 8
        assert set(statuses) == {200}
        print(f"small {1000 * sorted(times)[10]:.0f} ms, large {1000 * large_alone:.0f} ms")
        assert sorted(times)[10] < large_alone  # far sooner than even one large picture takes


def test_a_full_queue_answers_503_with_retry_after(tmp_path: Path) -> None:
    slow = write(tmp_path / "slow.onnx", repeats=40)
    with (
        running(tmp_path, "--model", str(slow), "--queue-size", "2", "--max-batch", "1") as server,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda _: predict(server, encode(RED)), range(32)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 32
        for answer in refused:
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["detail"] == "The server is busy; try again in a second."
        assert predict(server, encode(RED)).status_code == 200
