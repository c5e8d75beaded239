"""What one connection may cost, and for whom the server answers."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from typing import Any

import httpx
import pytest

from serving.hosts import AllowedHosts
from serving.settings import read_settings
from tests.serving.conftest import MAX_CONNECTIONS, RED, Server, encode, predict

BODY = b"--x\r\n\r\n" + encode(RED) + b"\r\n--x--\r\n"
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while part := connection.recv(2**16):
            received += part
    except ConnectionResetError:
        pass
    return received


def chunks(size: int) -> bytes:
    parts = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_a_length_together_with_chunks_is_refused_and_closes_the_connection(server: Server) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(HEAD + CHUNKED + LENGTH + chunks(1000) + smuggled)
        answers = everything(connection)
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1, 400)])
def test_chunks_may_not_be_tiny(server: Server, size: int, status: int) -> None:
    body = chunks(size) if size > 1 else b"1\r\nx\r\n" * 101
    with connected(server) as connection:
        connection.sendall(HEAD + CHUNKED + b"\r\n" + body)
        assert int(connection.recv(1000).split()[1]) == status


def test_a_complete_head_may_not_be_long(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 30_000 + b"\r\n")
        assert everything(connection)[:13] in (b"HTTP/1.1 400 ", b"")


def test_what_comes_after_the_answer_may_be_anything(server: Server) -> None:
    for rest in (b"zz\r\n", b"1\r\nx\r\n" * 200):
        with connected(server) as connection:
            connection.sendall(HEAD.replace(b"/v1/predict", b"/nowhere") + CHUNKED + b"\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 404 ")
            connection.sendall(rest)
            everything(connection)
    assert predict(server, encode(RED)).status_code == 200
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_ends_its_side_gets_its_answers(server: Server, requests: int) -> None:
    with connected(server) as connection:
        connection.sendall((HEAD + LENGTH + BODY) * requests)
        connection.shutdown(socket.SHUT_WR)
        answers = everything(connection)
    assert answers.count(b"HTTP/1.1 200 ") == requests
    assert answers.count(b'"class_name":"red"') == requests


def test_a_client_that_ends_its_side_within_a_request_is_gone(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(HEAD + LENGTH + BODY[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b""


def test_at_the_limit_on_connections_probes_are_answered_and_others_told_when_to_return(
    server: Server,
) -> None:
    idle = [connected(server) for _ in range(MAX_CONNECTIONS)]
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/v1/model", 503)):
        answer = httpx.get(server.url + path)
        assert answer.status_code == status
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["detail"] == "The server is busy; try again in a second."
    for connection in idle:
        connection.close()


def test_a_client_that_never_reads_loses_its_connection(server: Server) -> None:
    requests = memoryview(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100_000)
    with connected(server) as connection:
        connection.settimeout(0.5)
        with contextlib.suppress(
            TimeoutError, ConnectionError
        ):  # the server reads no more, because it cannot write
            while requests:
                requests = requests[connection.send(requests) :]
        ended = select.poll()
        ended.register(connection, select.POLLHUP)
        assert ended.poll(8000)


def test_a_client_that_reads_slowly_gets_all(server: Server) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
    whole = len(httpx.get(f"{server.url}/openapi.json").content)
    count = 1 + 6_000_000 // whole  # more than the system keeps
    with connected(server) as connection:
        connection.sendall((request + b"\r\n") * (count - 1) + request + b"Connection: close\r\n\r\n")
        received = 0
        while part := connection.recv(2**19):
            received += len(part)
            time.sleep(0.1)
    assert received > count * whole


def test_a_compressed_body_is_refused_by_name(server: Server) -> None:
    answer = httpx.post(f"{server.url}/v1/predict", content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert answer.json()["detail"] == "Content-Encoding 'gzip' is not supported; send the body as it is."


def test_a_request_for_another_host_is_refused(server: Server) -> None:
    for host, status in (
        ("localhost", 200),
        (f"LOCALHOST:{server.port}", 200),
        (f"127.0.0.1:{server.port}", 200),
        ("[::1]:8000", 200),
        ("attacker.example:8000", 421),
        ("127.0.0.1.attacker.example", 421),
        ("192.0.2.1", 421),
        ("", 421),
    ):
        answer = httpx.get(f"{server.url}/v1/model", headers={"Host": host})
        assert answer.status_code == status, host
    assert "serve.allowed_hosts" in answer.json()["detail"]
    with connected(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("listening", "allowed", "good", "bad"),
    [
        ("0.0.0.0", "", ["192.0.2.7:80", "[2001:db8::1]:80", "localhost"], ["a.example"]),
        ("a.example", "B.example, c.example", ["a.example", "b.example:80", "c.example"], ["d.example"]),
        ("127.0.0.1", "*", ["anything"], []),
    ],
)
def test_the_setting_names_more_hosts(listening: str, allowed: str, good: list[str], bad: list[str]) -> None:
    hosts = read_settings({"allowed_hosts": allowed, "host": listening}).allowed_hosts

    async def status(host: str) -> int:
        statuses: list[int] = []

        async def app(*_: Any) -> Any:
            statuses.append(200)

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        scope = {"type": "http", "headers": [(b"host", host.encode())]}
        await AllowedHosts(app, listening, hosts)(scope, app, send)
        return statuses[0]

    assert {asyncio.run(status(host)) for host in good} == {200}
    assert {asyncio.run(status(host)) for host in bad} <= {421}
