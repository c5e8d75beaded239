"""Decodes requests where each can do no harm: on the event loop, in a thread, or in a process that can be stopped.

What a picture costs is known only roughly before it is decoded. Requests that are certainly cheap are decoded in this
process, which is fastest. All others go to one of two processes, for smaller and for larger requests. Each of these
decodes one request at a time, and is ended and replaced when a request takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from serving.arrays import Images
from serving.errors import Busy, RequestError
from serving.forms import FORM, count_parts, media_type
from serving.images import Limits, read_images

log = logging.getLogger("serving")


@dataclass(frozen=True)
class Bounds:
    """What one place for decoding takes on: bytes of body, and work (serving/headers.py)."""

    body: int
    most: int


# Decoding this takes 0.1 ms, and handing it to a thread would take as long. The worst case takes 5 to 6 ms, because
# text in a PNG can inflate a thousandfold.
LOOP = Bounds(2048, 2048)
# Pictures like those that networks are trained on. The worst case takes some 20 ms.
THREAD = Bounds(64 * 2**10, 2_000_000)
SMALLER = Bounds(2**20, 4_000_000)
SMALLER_SECONDS = 0.5
SMALLER_MIB = 32
# Requests that wait for the process for larger ones. Each takes some tenths of a second.
LARGER_WAITING = 16
# One thread, and memory that returns to the system when a picture is done (glibc).
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
# The limit on processor time ends what computes. This limit, in times of it, is for a process that is stuck.
STUCK = 10


class Decoder:
    """The processes of one serving/decoder.py. ``decode`` must not be called by two threads at once."""

    def __init__(self, seconds: float, mib: float, niceness: int) -> None:
        self.seconds = seconds
        self._command = [sys.executable, "-m", "serving.decoder", str(seconds), str(mib), str(niceness)]

    def start(self) -> None:
        """Starts the process. Tasks may be sent at once."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders of some formats write thousands of remarks there
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,  # Ctrl-C in a terminal reaches only the server, which ends this process
        )

    def decode(self, task: dict[str, Any], body: bytearray) -> Images | None:
        """Returns the images, or None if they may take more work than ``task["most"]``.

        Raises RequestError, and TimeoutError if the process was ended because it took too long.
        """
        stuck = threading.Timer(STUCK * self.seconds, self._kill)
        stuck.start()
        try:
            answer = self._ask(task, body)
        except (OSError, ValueError):  # the processes have ended
            self.end()
            self.start()
            answer: Images | dict[str, Any] = {"ended": -signal.SIGKILL}
        finally:
            stuck.cancel()
        if isinstance(answer, np.ndarray):
            return answer
        if "error" in answer:
            raise RequestError(*answer["error"])
        if (ended := answer.get("ended", 0)) in (-signal.SIGPROF, -signal.SIGKILL):
            raise TimeoutError
        if ended:
            log.warning("a decoder ended with status %d and was replaced", ended)
            raise RequestError(422, "The request cannot be decoded.")
        return None

    def _ask(self, task: dict[str, Any], body: bytearray) -> Images | dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({**task, "size": len(body)}).encode() + b"\n")
        self._process.stdin.write(body)
        self._process.stdin.flush()
        if json.loads(self._process.stdout.readline()) != {"read": len(body)}:
            raise ValueError("the process ended before it had the task, so the next one would read the rest")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if not (shape := answer.get("shape")):
            return answer
        content = self._process.stdout.read(math.prod(shape))
        return np.frombuffer(content, np.uint8).reshape(shape)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the process and its copy

    def end(self) -> None:
        """Ends the processes, which may have ended before."""
        assert self._process.stdin and self._process.stdout
        self._kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(OSError):  # what was written to it is lost
            self._process.stdin.close()


class Target(Protocol):
    """What images are fitted to."""

    @property
    def shape(self) -> tuple[int, int, int]: ...  # height, width, channels

    @property
    def pixel_scale(self) -> tuple[float, float]: ...  # see fit_images


class Decoding:
    """Decides where a request is decoded. Use it as a context."""

    def __init__(self, limits: Limits, threads: int, seconds: float, mib: float) -> None:
        self.limits = limits
        self.soon = 0  # requests that will be decoded within milliseconds
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._smaller = Decoder(SMALLER_SECONDS, SMALLER_MIB, niceness=0)
        self._larger = Decoder(seconds, mib, niceness=5)  # yields to the requests of others
        # Each of these threads waits for the answers of one process.
        self._for_smaller = ThreadPoolExecutor(1, thread_name_prefix="decode-smaller")
        self._for_larger = ThreadPoolExecutor(1, thread_name_prefix="decode-larger")
        self._larger_waiting = 0

    def __enter__(self) -> Self:
        self._smaller.start()
        self._larger.start()
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in (self._smaller, self._larger):
            decoder.end()
        for threads in (self._threads, self._for_smaller, self._for_larger):
            threads.shutdown(cancel_futures=True)

    async def decode(self, content_type: str, body: bytearray, target: Target) -> Images:
        """Returns the images of a request, fitted to the target. Raises RequestError."""
        images = None
        if len(body) <= LOOP.body:
            images = self._here(content_type, body, target, LOOP.most)
        if images is None and len(body) <= SMALLER.body:
            self.soon += 1
            try:
                images = await self._decode_small(content_type, body, target)
            finally:
                self.soon -= 1
        return await self._decode_large(content_type, body, target) if images is None else images

    async def _decode_small(self, content_type: str, body: bytearray, target: Target) -> Images | None:
        """Returns None if the request turns out to be a large one."""
        loop, images = asyncio.get_running_loop(), None
        if len(body) <= THREAD.body:
            here = (content_type, body, target, THREAD.most)
            images = await loop.run_in_executor(self._threads, self._here, *here)
        if images is None:
            task = self._task(content_type, target, SMALLER.most)
            with contextlib.suppress(TimeoutError):
                images = await loop.run_in_executor(self._for_smaller, self._smaller.decode, task, body)
        return images

    async def _decode_large(self, content_type: str, body: bytearray, target: Target) -> Images:
        if self._larger_waiting >= LARGER_WAITING:
            raise Busy
        loop, task = asyncio.get_running_loop(), self._task(content_type, target, None)
        self._larger_waiting += 1
        try:
            images = await loop.run_in_executor(self._for_larger, self._larger.decode, task, body)
        except TimeoutError:
            raise RequestError(
                422, f"The images take too long to decode: {self._larger.seconds:g} seconds at most."
            ) from None
        finally:
            self._larger_waiting -= 1
        assert images is not None  # it takes on any work
        return images

    def _here(self, content_type: str, body: bytearray, target: Target, most: int | None) -> Images | None:
        return read_images(content_type, body, target.shape, self.limits, most, target.pixel_scale)

    def _task(self, content_type: str, target: Target, most: int | None) -> dict[str, Any]:
        return {
            "content_type": content_type,
            "shape": target.shape,
            "scale": target.pixel_scale,
            "images": self.limits.images,
            "pixels": self.limits.pixels,
            "most": most,
        }


def count_images(content_type: str, body: bytearray, limits: Limits) -> int | None:
    """Returns at least as many images as the body holds, without parsing it; None if it is JSON that is soon parsed."""
    kind, options = media_type(content_type)
    if kind != FORM:
        return limits.images if len(body) > THREAD.body else None
    return count_parts(options.get(b"boundary", b""), body, limits.images)
