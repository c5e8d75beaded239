"""Predictions over a real connection: answers and refusals."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from tests.serving.conftest import BLUE, GREEN, RED, Server, encode, predict
from tests.serving.tiny import CLASS_NAMES


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 200), (3, 500)])
def test_names_the_colour_of_files_of_every_kind_and_size(
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
    bodies = [(1, [[7, 7], [7, 7]]), (1, [[[7], [7]]]), (2, {"images": [[[7]], [[[7, 7, 7]]]]})]
    for images, body in bodies:
        answer = httpx.post(f"{server.url}/v1/predict", json=body).json()
        probabilities = [row["probabilities"] for row in answer["predictions"]]
        np.testing.assert_allclose(probabilities, np.full((images, 3), 1 / 3), atol=1e-6)


JPEG = encode(RED, (300, 300), kind="JPEG")
BAD_FILES = {
    "not an image": (b"hello", 422, "Image 1 is not a PNG, JPEG, WebP, GIF, TIFF, BMP or PPM image."),
    "another format": (
        encode(RED, kind="ICO"),
        422,
        "Image 1 is not a PNG, JPEG, WebP, GIF, TIFF, BMP or PPM image.",
    ),
    "empty": (b"", 422, "Image 1 is not a PNG, JPEG, WebP, GIF, TIFF, BMP or PPM image."),
    "truncated": (JPEG[: len(JPEG) // 2], 422, "Image 1 is truncated or damaged."),
    "a bomb": (
        encode(0, (30_000, 30_000), "1"),
        413,
        "Too many pixels: a request may hold 1,000,000 in total.",
    ),
    "many scans": (
        JPEG[:-2] + b"\xff\xda\x00\x02" * 50 + JPEG[-2:],
        422,
        "Image 1 is a JPEG with more than 40 scans; save it with fewer.",
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
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + head
            + b"\r\n\r\n"
        )
        try:
            for _ in range(2000):  # 131 MB, if the server accepted them
                connection.sendall(b"10000\r\n" + chunk + b"\r\n" if length == "chunked" else chunk)
        except OSError:
            pass  # the server closed the connection
        else:
            pytest.fail("the server accepted all of it")
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
