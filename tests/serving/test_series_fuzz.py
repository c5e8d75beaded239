"""Thousands of malformed series get an answer or a 4xx each, and large ones delay nobody."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serving import drift
from tests.serving.conftest import Server, running
from tests.serving.drift import rows, table
from tests.serving.test_hostile import memory
from tests.serving.test_series import CSV, asked, forecaster, series_file

__all__ = ["forecaster", "series_file"]  # fixtures

REQUESTS = int(os.environ.get("MSDARTS_FUZZ", "1500"))
JSON = {"Content-Type": "application/json"}
GOOD = (
    (CSV, table()),
    (JSON, json.dumps({"rows": rows()}).encode()),
    (JSON, json.dumps({"series": [rows(), rows(times=False)]}).encode()),
    ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\n" + table() + b"\r\n--x--\r\n"),
)
PIECES = (
    *(
        b",",
        b"\n",
        b"\r",
        b'"',
        b";",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"nan",
        b"1e999",
        b"-",
        b"9" * 400,
        b"{",
        b"}",
    ),
    *(
        b"[",
        b"]",
        b"null",
        b"true",
        b"\\ud800",
        b"T",
        b"Z",
        b"+99:99",
        b"0000-00-00",
        b"9999-12-31T23:00",
        b"time",
        b"load",
    ),
    *(
        "\u0661".encode(),
        "\u2212".encode(),
        b" " * 50,
        b"1_0",
        b"0x1",
        b"24:00",
        b"--x",
        b"[" * 300,
        b'"rows"',
        b"W01",
    ),
)


def test_a_body_that_is_cut_anywhere_gets_an_answer_or_a_sentence(forecaster: Server) -> None:
    with httpx.Client(base_url=forecaster.url, timeout=30) as client:
        for headers, body in GOOD:
            for length in range(len(body)):
                answer = client.post("/v1/predict", content=body[:length], headers=headers)
                # The last line break may be missing.
                assert answer.status_code == 200 or 400 <= answer.status_code < 500, (length, answer.text)
                if answer.status_code == 200:
                    assert headers is not JSON and length > len(body) - 3
                else:
                    assert answer.json()["detail"].endswith(".")


def test_mutated_bodies_get_2xx_or_4xx_and_do_no_harm(forecaster: Server) -> None:
    rng, statuses = random.Random(5), []
    longest = 0.0
    with httpx.Client(base_url=forecaster.url, timeout=30) as client:
        for number in range(100):  # fills the memory that a server in use needs anyway
            headers, body = GOOD[number % len(GOOD)]
            assert client.post("/v1/predict", content=body, headers=headers).status_code == 200
        before = forecaster.memory()
        for number in range(REQUESTS):
            headers, good = GOOD[number % len(GOOD)]
            body = bytearray(good)
            for _ in range(rng.randrange(4)):
                start = rng.randrange(len(body))
                body[start : start + rng.randrange(5)] = rng.choice(PIECES)
            begin = time.perf_counter()
            answer = client.post("/v1/predict", content=bytes(body), headers=headers)
            longest = max(longest, time.perf_counter() - begin)
            statuses.append(answer.status_code)
            assert answer.status_code == 200 or 400 <= answer.status_code < 500, bytes(body)
            if answer.status_code != 200:
                detail = answer.json()["detail"]
                assert detail.endswith(".") and "\n" not in detail and len(detail) < 400, detail
        after = forecaster.memory()
        assert asked(forecaster, table()).status_code == 200
    print(f"{REQUESTS} requests, {statuses.count(200)} answered, longest {1000 * longest:.0f} ms,"
          f" memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB")  # fmt: skip
    assert 0 < statuses.count(200) < REQUESTS / 2
    assert longest < 2 and after < 1.1 * before
    assert "Traceback" not in forecaster.log.read_text()


LINE = b"2026-03-01T22:00,1,2,3\n"
HEADER = b"time,load,price,wind\n"
MIB = 2**20
LARGE: dict[str, tuple[dict[str, str], Callable[[], bytes]]] = {
    "JSON of empty lists": (JSON, lambda: b"[" + b"[]," * 699_000 + b"[]]"),
    "JSON of as many lists as are allowed": (JSON, lambda: b"[" + b"[]," * 99_000 + b"[]]"),
    "JSON of empty objects": (JSON, lambda: b'{"rows":[' + b"{}," * 99_000 + b"{}]}"),
    "JSON of numbers": (JSON, lambda: b'{"rows":[' + b"0," * 1_040_000 + b"0]}"),
    "JSON of strings": (JSON, lambda: b'{"rows":[' + b'"",' * 690_000 + b"0]}"),
    "JSON of names": (JSON, lambda: b'{"rows":[{' + b",".join(b'"%x":1' % n for n in range(190_000)) + b"}]}"),
    "JSON of rows": (JSON, lambda: json.dumps({"rows": rows() * 7000}).encode()),
    "JSON that is deep": (JSON, lambda: b"[" * 99_000),
    "one long number": (JSON, lambda: b'{"rows":[' + b"1" * 2_000_000 + b"]}"),
    "CSV of 16 MB": (CSV, lambda: HEADER + LINE * 700_000),
    "CSV of line breaks": (CSV, lambda: HEADER + b"\n" * 16_700_000 + b"x"),
    "CSV of returns": (CSV, lambda: b"\r" * 16_700_000 + b"x"),
    "CSV of commas": (CSV, lambda: HEADER + b"," * 16_700_000),
    "CSV of quotation marks": (CSV, lambda: HEADER + b'"' * 16_700_000),
    "a header of 16 MB": (CSV, lambda: b"a," * 8_300_000),
    "one cell of 16 MB": (CSV, lambda: HEADER + LINE * 4 + b"1" * 16_600_000),
    "a form of 16 MB": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        lambda: b"--x\r\n\r\n" + (b"\r\n--x\r\n\r\n").join([HEADER + LINE * 22_000] * 32) + b"\r\n--x--\r\n",
    ),
    "a form of parts": ({"Content-Type": "multipart/form-data; boundary=x"}, lambda: b"--x\r\n\r\n\r\n" * 1_600_000),
}  # fmt: skip
if "MSDARTS_FUZZ" not in os.environ:
    kept = (
        "JSON of empty lists",
        "JSON of names",
        "JSON of rows",
        "CSV of line breaks",
        "CSV of commas",
        "a form of 16 MB",
    )
    LARGE = {name: LARGE[name] for name in kept}


def long_table(lookback: int) -> bytes:
    """A good table of one day per row, so that every time must be found in its zone."""
    days = np.datetime64("1998-01-01") + np.arange(lookback)
    lines = (f"{day}T00:00,{number}.25,{number},-1e-3\n" for number, day in enumerate(days))
    return HEADER + "".join(lines).encode()


@pytest.mark.slow
def test_large_bodies_delay_nobody(tmp_path: Path) -> None:
    lookback = 8000
    model = drift.write(
        tmp_path / "long.onnx",
        lookback=lookback,
        step={"unit": "seconds", "count": 86_400},
        zone="Europe/Berlin",
    )
    small = {"rows": rows()}  # refused for its length, which takes no other thread
    waits: dict[str, list[float]] = {}
    most = 0.0
    attacks = {**LARGE, "a long good table": (CSV, lambda: long_table(lookback))}
    with (
        running(tmp_path, "--model", str(model)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for _ in range(20):
            assert client.post("/v1/predict", json=small).status_code == 422
        good = client.post("/v1/predict", content=long_table(lookback), headers=CSV)
        assert good.status_code == 200, good.text
        idle = memory(server.process)
        for name, (headers, make) in attacks.items():
            body, ended, statuses = make(), threading.Event(), set()

            def attack(
                headers: dict[str, str] = headers, body: bytes = body, statuses: set[int] = statuses
            ) -> None:
                with contextlib.suppress(httpx.TransportError):  # the server may close before all is sent
                    statuses.add(
                        httpx.post(
                            f"{server.url}/v1/predict", content=body, headers=headers, timeout=60
                        ).status_code
                    )

            threads = [threading.Thread(target=attack) for _ in range(2)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                start = time.perf_counter()
                assert client.post("/v1/predict", json=small).status_code == 422
                waits.setdefault(name, []).append(time.perf_counter() - start)
                most = max(most, memory(server.process) - idle)
            ended.set()
            assert statuses <= {200, 400, 413, 422}, (name, statuses)
        assert "Traceback" not in server.log.read_text()
    for name, of_kind in waits.items():
        print(f"{1000 * max(of_kind):5.0f} ms at most for {len(of_kind):4} requests: {name}")
    print(f"memory +{most:.0f} MiB")
    assert max(map(max, waits.values())) < 2
    assert most < 200
