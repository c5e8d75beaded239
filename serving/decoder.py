"""Decodes what may be expensive, in a process of its own: ``python -m serving.decoder SECONDS MIB NICENESS``.

It reads tasks from standard input and writes answers to standard output, until the input ends. A task and an answer
are each a line of JSON, followed by as many bytes as the line says. The system ends the process when a task takes
more than SECONDS of processor time, and refuses it memory beyond MIB more than it needs when idle. The process that was
started only waits for this to happen; the one that decodes is its copy, and is replaced by another copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from typing import Any

from serving.errors import RequestError
from serving.images import Limits, fit_images, open_images


def main() -> None:
    """Keeps a copy of this process that answers tasks, until the input ends."""
    seconds, mib, niceness = map(float, sys.argv[1:])
    os.nice(int(niceness))
    while child := os.fork():
        _, status = os.waitpid(child, 0)
        if not (ended := os.waitstatus_to_exitcode(status)):
            return
        _send({"ended": ended})
    _limit_memory(int(mib * 2**20))
    _answer_all(seconds)


def _answer_all(seconds: float) -> None:
    tasks = sys.stdin.buffer
    while line := tasks.readline():
        task = json.loads(line)
        body = [tasks.read(task["size"])]
        _send({"read": len(body[0])})  # from here on, the next copy can go on with the next task
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process, even within a decoder
        answer, content = _answer(task, body)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answer, content)


def _answer(task: dict[str, Any], body: list[bytes]) -> tuple[dict[str, Any], bytes]:
    """``body`` is a list of one, which is emptied as soon as possible, because its memory counts."""
    try:
        limits = Limits(task["images"], task["pixels"])
        pictures = open_images(task["content_type"], body.pop(), limits, task["most"], stoppable=True)
        if pictures is None:
            return {"shape": None}, b""
        images = fit_images(pictures, tuple(task["shape"]), tuple(task["scale"]))
    except RequestError as error:
        return {"error": [error.status, str(error)]}, b""
    except MemoryError:
        return {"error": [413, "The request needs too much memory to decode."]}, b""
    return {"shape": images.shape}, images.tobytes()


def _send(answer: dict[str, Any], content: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


def _limit_memory(extra: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:  # Linux only
        pages = int(file.read().split()[0])
        most = pages * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
