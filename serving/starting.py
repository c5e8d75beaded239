"""Ctrl-C and SIGTERM before the server listens: one line and the exit status, instead of a traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def end_at_once() -> None:
    """Lets SIGINT and SIGTERM end this process at once if it is ``python -m serving``, which has nothing to save yet."""
    words = sys.orig_argv
    if "-m" not in words or words[words.index("-m") + 1 :][:1] != ["serving"]:
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # which it is under nohup
            signal.signal(number, _end)


def ready() -> None:
    """Gives the signals back to Python, because the server shuts down cleanly from here on."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _end:
            signal.signal(number, default)


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, f"serving: interrupted by {signal.Signals(number).name} before it listened\n".encode())
    os._exit(128 + number)
