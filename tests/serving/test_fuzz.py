"""Thousands of malformed requests get a 4xx each; the server keeps answering, and its memory does not grow."""

from __future__ import annotations

import json
import os
import random
import socket
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
from PIL import Image

from tests.serving import hostile
from tests.serving.conftest import RED, Server, encode, files

REQUESTS = int(os.environ.get("MSDARTS_FUZZ", "2400"))
Attack = Callable[[random.Random, httpx.Client], int]


def corrupted_file(rng: random.Random, client: httpx.Client) -> int:
    """An image file without its end and with some bytes changed."""
    kind = rng.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
    content = bytearray(
        encode((rng.randrange(256), 7, 7), (rng.randrange(9, 200), rng.randrange(9, 200)), kind=kind)
    )
    del content[rng.randrange(len(content) // 2) :]
    for _ in range(rng.randrange(4)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return client.post("/v1/predict", files=files(bytes(content))).status_code


def bomb(rng: random.Random, client: httpx.Client) -> int:
    """A small PNG whose header announces millions of pixels."""
    size = (rng.randrange(2000, 10_000), rng.randrange(2000, 10_000))
    content = bytearray(encode(0, (1, 1), "L"))
    content[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return client.post("/v1/predict", files=files(bytes(content))).status_code


def noise(rng: random.Random, client: httpx.Client) -> int:
    """A file of random bytes, which may start like an image."""
    start = rng.choice(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"GIF89a", b"BM"]
    )
    return client.post("/v1/predict", files=files(start + rng.randbytes(rng.randrange(3000)))).status_code


def multipart(rng: random.Random, client: httpx.Client) -> int:
    """A multipart body that is itself broken."""
    file = BytesIO()
    Image.new("RGB", (9, 9), RED).save(file, "PNG")
    body = (
        b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + file.getvalue() + b"\r\n--b--\r\n"
    )
    cut = rng.randrange(len(body) - 8)
    broken = rng.choice(
        [body[:cut], body[cut + 1 :], body.replace(b"--b", b"--c"), body.replace(b"\r\n", b"\n"), b"--b" * 99]
    )
    boundary = rng.choice(["b", "b", "b", "x" * 300, "", '"b', "\u00fc"])
    kind = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    return client.post("/v1/predict", content=broken, headers=[(b"Content-Type", kind)]).status_code


def wrong_json(rng: random.Random, client: httpx.Client) -> int:
    """JSON that is broken or has the wrong form."""
    wrong = rng.choice(["x", -1, 256, 1.5, None, True, {}, [], [[]], 10**30, "9" * 50])
    size = rng.randrange(1, 20)
    image: list[list[Any]] = [[[1, 2, 3] for _ in range(size)] for _ in range(size)]
    image[rng.randrange(size)][rng.randrange(size)] = rng.choice([wrong, [wrong], [1, wrong, 3], [1, 2]])
    value = rng.choice([image, [image], {"images": [image]}, {"images": wrong}, {"image": image}, wrong])
    text = json.dumps(value).encode()
    text = rng.choice([text, text, text[:-1], text + b"]", b"[" * rng.randrange(1, 5000), rng.randbytes(50)])
    return client.post("/v1/predict", content=text, headers={"Content-Type": "application/json"}).status_code


def strange_request(rng: random.Random, client: httpx.Client) -> int:
    """A path, method or content type that the server does not have."""
    path = "/" + "".join(rng.choice("abc/%.?\u00e4") for _ in range(rng.randrange(1, 40)))
    match rng.randrange(4):
        case 0:
            return client.get("/x" + path.replace("?", "")).status_code
        case 1:
            return client.request(
                rng.choice(["PUT", "DELETE", "PATCH", "NONSENSE"]), "/v1/predict"
            ).status_code
        case 2:
            return client.post(
                "/v1/predict", content=rng.randbytes(99), headers={"Content-Type": "a/b"}
            ).status_code
    return client.post("/v1/predict", headers={"Content-Length": "0"}).status_code


def not_http(rng: random.Random, client: httpx.Client) -> int:
    """Bytes that are not an HTTP request."""
    lines = [
        rng.randbytes(60) + b"\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 1_000_000,
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ]
    with socket.create_connection(
        (client.base_url.host, client.base_url.port or 80), timeout=20
    ) as connection:
        try:
            connection.sendall(
                b"\x00" + lines[0] if (choice := rng.randrange(len(lines))) == 0 else lines[choice]
            )
            answer = connection.recv(100)
        except ConnectionError:  # the server closed the connection while we were sending, which also refuses
            return 400
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def many_pieces(rng: random.Random, client: httpx.Client) -> int:
    """A picture file of more pieces than any encoder writes."""
    make = rng.choice([hostile.segments, hostile.chunks, hostile.fill, hostile.junk])
    return client.post("/v1/predict", files=files(make(rng.randrange(1100, 30_000)))).status_code


def many_scans(rng: random.Random, client: httpx.Client) -> int:
    """A JPEG with more scans than are allowed, under one of its names."""
    content = hostile.scans(rng.randrange(41, 500), (rng.randrange(8, 999), rng.randrange(8, 999)))
    content = hostile.multi_picture(content) if rng.random() < 0.5 else content
    return client.post("/v1/predict", files=files(content)).status_code


ATTACKS: tuple[Attack, ...] = (
    corrupted_file,
    bomb,
    noise,
    multipart,
    wrong_json,
    strange_request,
    not_http,
    many_pieces,
    many_scans,
)


def test_malformed_requests_get_4xx_and_do_no_harm(server: Server) -> None:
    rng = random.Random(7)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(100):  # fills the memory that a server in use needs anyway
            assert client.post("/v1/predict", files=files(encode(RED, (500, 500)))).status_code == 200
        before = server.memory()
        wrong, longest = [], 0.0
        for number in range(REQUESTS):
            attack = ATTACKS[number % len(ATTACKS)]
            status = attack(rng, client)
            if not 400 <= status < 500:
                wrong.append((number, attack.__name__, status))
            if number % 100 == 0:
                start = time.perf_counter()
                answer = client.post("/v1/predict", files=files(encode(RED)))
                longest = max(longest, time.perf_counter() - start)
                assert answer.json()["predictions"][0]["class_name"] == "red"
        after = server.memory()
        assert not wrong, wrong[:10]
        assert (
            client.post("/v1/predict", files=files(encode(RED))).json()["predictions"][0]["class_name"]
            == "red"
        )
        print(
            f"memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB over {REQUESTS} requests, longest {longest:.2f} s"
        )
        assert longest < 2
        assert after < 1.1 * before
    assert "Traceback" not in server.log.read_text()
