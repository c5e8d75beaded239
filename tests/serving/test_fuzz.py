"""Thousands of malformed requests get a 4xx each; the server keeps answering, and its memory does not grow."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serving import hostile
from tests.serving.conftest import RED, Server, encode, files

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
REQUESTS = int(os.environ.get("MSDARTS_FUZZ", "1200"))
CUTS = (
    max(1, 600 // len(KINDS)) if "MSDARTS_FUZZ" not in os.environ else 10**6
)  # lengths at which each file is cut
SLOW = 8  # clients that send byte by byte meanwhile
Attack = Callable[[random.Random, httpx.Client], int]


def enlarged(kind: str, width: int, height: int) -> bytes:
    """A tiny picture file whose header announces another size."""
    content = bytearray(encode(RED, (9, 9), kind=kind))
    match kind:
        case "PNG":
            content[16:24] = struct.pack(">II", width, height)
            content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        case "JPEG":
            at = content.index(b"\xff\xc0") + 5
            content[at : at + 4] = struct.pack(">HH", height, width)
        case "GIF":
            at = content.index(b",\x00\x00\x00\x00") + 5
            content[6:10] = content[at : at + 4] = struct.pack("<HH", width, height)
        case "BMP":
            content[18:26] = struct.pack("<II", width, height)
        case "PPM":
            content[:6] = b"P6\n%d %d" % (width, height)
        case "TIFF":
            for tag, size in ((256, width), (257, height)):
                at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
                content[at : at + 4] = struct.pack("<I", size)
        case _:
            return hostile.webp_canvas((width, height))
    return bytes(content)


def corrupted_file(rng: random.Random, client: httpx.Client) -> int:
    """An image file without its end and with some bytes changed."""
    kind = rng.choice(KINDS)
    content = bytearray(
        encode((rng.randrange(256), 7, 7), (rng.randrange(9, 200), rng.randrange(9, 200)), kind=kind)
    )
    del content[rng.randrange(len(content) // 2) :]
    for _ in range(rng.randrange(4)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return client.post("/v1/predict", files=files(bytes(content))).status_code


def bomb(rng: random.Random, client: httpx.Client) -> int:
    """A small file in any format whose header announces millions of pixels."""
    width, height = rng.randrange(2000, 10_000), rng.randrange(2000, 10_000)
    return client.post("/v1/predict", files=files(enlarged(rng.choice(KINDS), width, height))).status_code


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


SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
AMBIGUOUS = (  # heads, and bodies that end elsewhere for another reader
    (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 4", b"0\r\n\r\n"),
    (b"Content-Length: 5\r\nContent-Length: 0", b"hello"),
    (b"Content-Length: 5, 0", b"hello"),
    (b"Content-Length: +5", b"hello"),
    (b"Content-Length: 0x5", b"hello"),
    (b"Content-Length: 5 5", b"hello"),
    (b"Content-Length: -1", b""),
    (b"Content-Length: 99999999999999999999999", b""),
    (b"Content-Length : 5", b"hello"),
    (b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: xchunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"0x0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"-1\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"fffffffffffffffff\r\n"),
    (b"Transfer-Encoding: chunked", b"5\r\nhelloX\r\n0\r\n\r\n"),
    (b"A: b\r\n c: d\r\nContent-Length : 0", b""),
    (b"A: b\x00c\r\nContent-Length: 0", b""),
)


def smuggled(rng: random.Random, client: httpx.Client) -> int:
    """A request whose end is ambiguous, and another one behind it, which must not be answered."""
    head, body = rng.choice(AMBIGUOUS)
    sent = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + head
        + b"\r\n\r\n"
    )
    answer = until_closed(client, sent + body + SMUGGLED)
    if not answer:
        return 400  # closed without a word, which is orderly too
    return int(answer.split()[1]) if answer.count(b"HTTP/1.1 ") == 1 else 0


def until_closed(client: httpx.Client, sent: bytes) -> bytes:
    """What the server answers to these bytes until it closes the connection, which it must do."""
    answer = b""
    with socket.create_connection(
        (client.base_url.host, client.base_url.port or 80), timeout=20
    ) as connection:
        try:
            connection.sendall(sent)
            while part := connection.recv(4096):
                answer += part
        except ConnectionError:
            pass
    return answer


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
    smuggled,
    many_pieces,
    many_scans,
)


@contextmanager
def slow_bodies(server: Server) -> Iterator[list[bytes]]:
    """Clients that send a body byte by byte, again and again, within the block. Yields what they were answered."""
    answers: list[bytes] = []
    ended = threading.Event()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"

    def send() -> None:
        while not ended.is_set():
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                try:
                    connection.sendall(head)
                    while not ended.wait(0.1):
                        connection.sendall(b"[")
                except ConnectionError:  # the server has answered and closed
                    pass
                if not ended.is_set():
                    answers.append(connection.recv(100))

    threads = [threading.Thread(target=send) for _ in range(SLOW)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_is_refused_or_still_the_same_picture(server: Server, kind: str) -> None:
    content = encode(RED, (9, 9), kind=kind)
    lengths = random.Random(1).sample(range(1, len(content)), min(CUTS, len(content) - 1))
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for length in lengths:
            answer = client.post("/v1/predict", files=files(content[:length]))
            if answer.status_code == 200:  # what was cut off is not needed, such as the mark of the end
                assert answer.json()["predictions"][0]["class_name"] == "red", length
            else:
                assert 400 <= answer.status_code < 500, length


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_announces_too_many_pixels_is_refused_for_that(server: Server, kind: str) -> None:
    answer = httpx.post(f"{server.url}/v1/predict", files=files(enlarged(kind, 5000, 4000)))
    assert answer.status_code == 413 and "pixels" in answer.json()["detail"]


@pytest.mark.parametrize("case", range(len(AMBIGUOUS)))
def test_a_request_behind_an_ambiguous_one_is_not_answered(server: Server, case: int) -> None:
    class Chosen(random.Random):
        def choice(self, seq: Any) -> Any:
            return seq[case]

    with httpx.Client(base_url=server.url) as client:
        assert 400 <= smuggled(Chosen(), client) < 500, AMBIGUOUS[case]


def test_malformed_requests_get_4xx_and_do_no_harm(server: Server) -> None:
    rng = random.Random(7)
    with httpx.Client(base_url=server.url, timeout=30) as client, slow_bodies(server) as slow:
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
        assert len(slow) >= SLOW and all(answer.startswith(b"HTTP/1.1 408 ") for answer in slow), slow
    assert "Traceback" not in server.log.read_text()
