"""A real server on loopback, in its own process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.serving.tiny import write, write_known

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_CONNECTIONS = 150  # of the shared server


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: psutil.Process
    log: Path

    @property
    def port(self) -> int:
        """The port on loopback."""
        return int(self.url.rpartition(":")[2])

    def memory(self) -> int:
        """Resident bytes."""
        return self.process.memory_info().rss


@contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """``python -m serving`` with these arguments on a free port, ready to answer, and ended afterwards."""
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", "0", "--threads", "1", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"listening on (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        assert httpx.get(f"{found[1]}/readyz", timeout=60).status_code == 200
        yield Server(found[1], psutil.Process(process.pid), log)
    finally:
        process.send_signal(signal.SIGTERM)  # does nothing if the server has already ended
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file for 8 x 8 colour pictures, which names the strongest channel, with known.json beside it."""
    path = write(tmp_path_factory.mktemp("model") / "tiny.onnx")
    pictures = {name: encode(colour) for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE))}
    write_known(path, pictures, sure_from=0.6, brightness=(40, 200), contrast=(0, 120))
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[Server]:
    """A server of ``model_file`` whose limits are small enough to be reached.

    Its batches wait for a second, so a request that waits for company in vain is noticed.
    """
    folder = tmp_path_factory.mktemp("server")
    limits = ("--max-body-mib", "1", "--max-json-mib", "0.25", "--max-images", "4", "--max-pixels", "1000000")
    times = ("--body-seconds", "1", "--head-seconds", "1", "--write-seconds", "1", "--batch-wait-ms", "1000")
    with running(
        folder, "--model", str(model_file), *limits, *times, "--max-connections", str(MAX_CONNECTIONS)
    ) as started:
        yield started


Encode = Callable[..., bytes]


def encode(
    colour: tuple[int, ...] | int, size: tuple[int, int] = (8, 8), mode: str = "RGB", kind: str = "PNG"
) -> bytes:
    """An image file of one colour."""
    return saved(Image.new(mode, size, colour), kind)


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """The multipart form of some image files, as httpx takes it."""
    return [("images", (f"{number}.png", content)) for number, content in enumerate(contents)]


def predict(server: Server, *contents: bytes) -> httpx.Response:
    """The answer to some image files."""
    return httpx.post(f"{server.url}/v1/predict", files=files(*contents), timeout=30)
