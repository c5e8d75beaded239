"""The server over a real connection: what it answers, and what it refuses."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from tests.serving.conftest import BLUE, GREEN, RED, REPOSITORY, Server, encode, files, running
from tests.serving.tiny import CLASS_NAMES, GENOTYPE, write


def predict(server: Server, *contents: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/predict", files=files(*contents), timeout=30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 200), (3, 500)])
def test_names_the_colour_of_files_of_any_kind_and_size(
    server: Server, kind: str, size: tuple[int, int]
) -> None:
    answer = predict(server, *(encode(colour, size, kind=kind) for colour in (BLUE, RED, GREEN)))
    assert answer.status_code == 200
    content = answer.json()
    assert [prediction["class_name"] for prediction in content["predictions"]] == ["blue", "red", "green"]
    assert content["class_names"] == list(CLASS_NAMES)
    assert content["model_name"] == "tiny"
    assert re.fullmatch(r"[0-9a-f]{12}", content["model_version"])


def test_probabilities_are_those_of_onnx_runtime_for_the_same_pixels(
    server: Server, model_file: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model_file)
    for images in (pixels, pixels[:1]):
        (expected,) = session.run(None, {"image": images})
        for body in (images.tolist(), {"images": images.tolist()}):
            answer = httpx.post(f"{server.url}/v1/predict", json=body).json()
            got = np.array([row["probabilities"] for row in answer["predictions"]], np.float32)
            np.testing.assert_array_equal(got, expected)


def test_grey_pixels_are_taken_as_colour(server: Server) -> None:
    for body in ([[7, 7], [7, 7]], [[[7], [7]]], {"images": [[[7]], [[[7, 7, 7]]]]}):
        answer = httpx.post(f"{server.url}/v1/predict", json=body).json()
        for row in answer["predictions"]:
            np.testing.assert_allclose(row["probabilities"], 1 / 3, atol=1e-6)


def test_a_grey_model_takes_colour(tmp_path: Path) -> None:
    model = write(tmp_path / "grey.onnx", shape=(4, 4, 1), class_names=("light",))
    with running(tmp_path, "--model", str(model)) as grey:
        assert predict(grey, encode(RED), encode(200, mode="L")).status_code == 200
        assert httpx.post(f"{grey.url}/v1/predict", json=[[[1, 2, 3]]]).status_code == 200


JPEG = encode(RED, (300, 300), kind="JPEG")
BAD_FILES = {
    "not an image": (b"hello", 422, "Image 1 is not a PNG, JPEG or WebP image."),
    "a format not taken": (encode(RED, kind="GIF"), 422, "Image 1 is not a PNG, JPEG or WebP image."),
    "empty": (b"", 422, "Image 1 is not a PNG, JPEG or WebP image."),
    "truncated": (JPEG[: len(JPEG) // 2], 422, "Image 1 is truncated or damaged."),
    "a bomb": (
        encode(0, (30_000, 30_000), "1"),
        413,
        "Too many pixels: a request may hold 1,000,000 in all.",
    ),
    "many scans": (
        JPEG + b"\xff\xda" * 50,
        422,
        "Image 1 is a JPEG of more than 40 scans, which only attacks have.",
    ),
    "too large": (b"x" * 1_100_000, 413, "The request is too large: 1 MiB at most."),
}


@pytest.mark.parametrize(("content", "status", "sentence"), BAD_FILES.values(), ids=BAD_FILES)
def test_refuses_a_bad_file_in_one_sentence(
    server: Server, content: bytes, status: int, sentence: str
) -> None:
    answer = predict(server, content)
    assert (answer.status_code, answer.json()["detail"]) == (status, sentence)


def test_says_which_image_is_bad(server: Server) -> None:
    assert predict(server, encode(RED), b"hello").json()["detail"].startswith("Image 2 is not")


@pytest.mark.parametrize("length", ["declared", "chunked"])
def test_refuses_a_huge_body_without_keeping_it(server: Server, length: str) -> None:
    before = server.memory()
    chunk = b"x" * 65536
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = b"Content-Length: 1000000000" if length == "declared" else b"Transfer-Encoding: chunked"
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + head + b"\r\n\r\n"
        )
        try:
            for _ in range(2000):  # 131 MB, if the server let it
                connection.sendall(b"10000\r\n" + chunk + b"\r\n" if length == "chunked" else chunk)
        except OSError:
            pass  # the server had enough and closed
        else:
            pytest.fail("the server took it all")
    assert server.memory() < before + 20e6
    assert predict(server, encode(RED)).status_code == 200


def test_refuses_too_many_images(server: Server) -> None:
    for answer in (
        predict(server, *[encode(RED)] * 5),
        httpx.post(f"{server.url}/v1/predict", json=[[[[1]]]] * 5),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (
            413,
            "Too many images: a request may hold 4.",
        )


BAD_JSON = {
    b"{": (400, "The body is not valid JSON"),
    b"\xff": (400, "The body is not valid JSON"),
    b"[" * 100_000: (400, "The body is not valid JSON"),
    b"1": (422, "JSON must be an array"),
    b"[]": (422, "Image 1 must be rows of pixels"),
    b"[[[]]]": (422, "Image 1 must be rows of pixels"),
    b'{"images": []}': (422, "The request holds no image"),
    b'{"pictures": [[[1]]]}': (422, "A JSON object must be"),
    b"[[1, 2], [3]]": (422, "Image 1 must be rows of pixels"),
    b"[[1, [2]]]": (422, "Image 1 must be rows of pixels"),
    b"[[256]]": (422, "Image 1 must be rows of pixels"),
    b"[[-1]]": (422, "Image 1 must be rows of pixels"),
    b"[[1.5]]": (422, "Image 1 must be rows of pixels"),
    b"[[true]]": (422, "Image 1 must be rows of pixels"),
    b"[[NaN]]": (422, "Image 1 must be rows of pixels"),
    b'["ab", "cd"]': (422, "Image 1 must be rows of pixels"),
    b"[[1" + b"0" * 5000 + b"]]": (400, "The body is not valid JSON"),
    b"[[[[[1]]]]]": (422, "Image 1 must be rows of pixels"),
    b"[[[1, 2, 3, 4]]]": (422, "Image 1 has 4 channels; send 1 (grey) or 3 (red, green, blue)."),
    b"[" + b" " * 300_000 + b"]": (413, "The request is too large: 0.25 MiB at most."),
}


@pytest.mark.parametrize("body", BAD_JSON, ids=[f"{body[:12]!r}" for body in BAD_JSON])
def test_refuses_bad_json_in_one_sentence(server: Server, body: bytes) -> None:
    answer = httpx.post(
        f"{server.url}/v1/predict", content=body, headers={"Content-Type": "application/json"}
    )
    status, sentence = BAD_JSON[body]
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(sentence)
    assert len(answer.content) < 300


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"hello", 415),
        ("", b"", 415),
        ("image/png", encode(RED), 415),
        ("multipart/form-data", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nhello", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("multipart/form-data; boundary=" + "x" * 500, b"--x--\r\n", 400),
        ("multipart/form-data; boundary=\u00e4", b"--x--\r\n", 400),
    ],
)
def test_refuses_other_bodies(server: Server, content_type: str, body: bytes, status: int) -> None:
    headers = [(b"Content-Type", content_type.encode("latin-1"))]
    answer = httpx.post(f"{server.url}/v1/predict", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].endswith(".")


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


def test_the_key(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file), MSDARTS_API_KEY="open sesame") as server:

        def status(path: str, **headers: str) -> int:
            if path == "/v1/predict":
                return httpx.post(server.url + path, files=files(encode(RED)), headers=headers).status_code
            return httpx.get(server.url + path, headers=headers).status_code

        for path in ("/v1/predict", "/v1/model", "/metrics"):
            assert status(path) == 401
            assert status(path, **{"X-API-Key": "open"}) == 401
            assert status(path, **{"X-API-Key": "\u00e4".encode()}) == 401  # type: ignore[arg-type]
            assert status(path, Authorization="Basic abc") == 401
            assert status(path, **{"X-API-Key": "open sesame"}) == 200
            assert status(path, Authorization="Bearer open sesame") == 200
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert status(path) == 200
        assert "sesame" not in server.log.read_text()


def test_model_and_metrics(server: Server) -> None:
    model = httpx.get(f"{server.url}/v1/model").json()
    assert model["image_shape"] == [8, 8, 3]
    assert model["genotype"] == GENOTYPE
    assert set(model["cells"]) == {"normal", "reduce"}
    httpx.get(f"{server.url}/made/up/path")
    metrics = httpx.get(f"{server.url}/metrics").text
    assert f'msdarts_model_info{{name="tiny",version="{model["version"]}"}} 1.0' in metrics
    assert 'msdarts_requests_total{route="other",status="404"}' in metrics
    assert "made" not in metrics


def test_the_pages_name_no_other_address(server: Server) -> None:
    for path in ("/", "/docs", "/page.css", "/page.js", "/icon.svg"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200
        outside = set(re.findall(r"(?:https?:)?//[\w.]+", answer.text)) - {
            "http://www.w3.org",
            "http://127.0.0.1",
        }
        assert not {address for address in outside if address.startswith("http")}, outside
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    schema = httpx.get(f"{server.url}/openapi.json").json()
    for path in schema["paths"]:
        assert path in httpx.get(f"{server.url}/docs").text


def test_an_interrupt_ends_it_quietly(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file)) as server:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(20)
        assert "Traceback" not in server.log.read_text()


def test_imports_neither_torch_nor_another_room() -> None:
    script = (
        "import sys, json, serving.__main__, mlflow; "
        "print(json.dumps([name for name in sys.modules if name.partition('.')[0] in "
        "('torch', 'models', 'stages', 'pipelines', 'prefect')]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert json.loads(output.stdout) == []
