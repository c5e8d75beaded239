"""A network of two: this machine, and a namespace for workers that can be cut off. Needs root and iproute2, on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess

HERE, THERE = "10.231.77.1", "10.231.77.2"  # addresses of the server and of the workers
_NAME, _OUTER, _INNER = "msdarts-soak", "msdarts0", "msdarts1"


def inside() -> list[str]:
    """What starts a command in the namespace."""
    return ["ip", "netns", "exec", _NAME]


def possible() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None


def make() -> None:
    """Creates the namespace and a pair of connected interfaces."""
    remove()
    _ip("netns", "add", _NAME)
    _ip("link", "add", _OUTER, "type", "veth", "peer", "name", _INNER, "netns", _NAME)
    _ip("addr", "add", f"{HERE}/30", "dev", _OUTER)
    _ip("link", "set", _OUTER, "up")
    for words in (
        ["addr", "add", f"{THERE}/30", "dev", _INNER],
        ["link", "set", _INNER, "up"],
        ["link", "set", "lo", "up"],
    ):
        _ip("-n", _NAME, *words)


def cut() -> None:
    """Packets are lost from now on, and connections stay open, as when a cable is pulled."""
    _ip("-n", _NAME, "link", "set", _INNER, "down")


def mend() -> None:
    _ip("-n", _NAME, "link", "set", _INNER, "up")


def remove() -> None:
    subprocess.run(["ip", "netns", "del", _NAME], stderr=subprocess.DEVNULL, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
