"""Random faults, one a minute, in a fixed order for a seed: what is killed, stopped, filled or cut, and for how long."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _network
from benchmarks._site import Site

BRIEF, LONG = (
    (5, 20, 45),
    (5, 30, 90),
)  # seconds: of a full disk or a stop, and of an absence from the network
SIZE = 1536  # MiB of the disk that is filled


@dataclass
class Fault:
    """What is done to a site, and for how long."""

    kind: str  # kill, stop, full or cut
    target: str  # a role of a process, host (a worker and all below it), disk or network
    seconds: float  # until it is mended: the server starts again, a stopped process goes on
    hit: bool = False  # whether there was such a process
    began: float = 0.0  # seconds since 1970
    roles: list[str] = field(default_factory=list)  # what lived then

    def record(self) -> dict[str, Any]:
        return dict(vars(self))


def faults(seed: int, count: int, network: bool, disk: bool) -> list[Fault]:
    """The faults of a soak, each kind about equally often."""
    draw = random.Random(seed)
    kinds = [("kill", role) for role in ("worker", "host", "flow", "stage", "dvc", "server")]
    kinds += [("stop", "process")]
    kinds += [("full", "disk")] if disk else []
    kinds += [("cut", "network")] if network else []
    chosen = []
    while len(chosen) < count:
        for kind, target in draw.sample(kinds, len(kinds)):
            role = draw.choice(("worker", "flow", "stage", "dvc", "server")) if kind == "stop" else target
            seconds = draw.choice(LONG if kind == "cut" or role == "server" else BRIEF)
            lasts = kind != "kill" or role == "server"
            chosen.append(Fault(kind, role, seconds if lasts else 0))
    return chosen[:count]


class Injector:
    """Does faults to a site and mends them when their time is over."""

    def __init__(self, site: Site):
        self.site = site
        self.mending: list[tuple[float, Callable[[], None]]] = []
        self.server_back = 0.0  # seconds of a monotonic clock: before that, nobody may start the server

    def strike(self, fault: Fault) -> None:
        fault.began = time.time()
        fault.roles = [
            role for role in ("server", "worker", "flow", "dvc", "stage") if self.site.processes(role)
        ]
        match fault.kind:
            case "kill":
                victims = self._victims(fault.target)
                if fault.target == "server":
                    self.server_back = time.monotonic() + fault.seconds
                _signal(victims, signal.SIGKILL)
                fault.hit = bool(victims)
            case "stop":
                victims = self._victims(fault.target)
                _signal(victims, signal.SIGSTOP)
                self._later(fault.seconds, lambda: _signal(victims, signal.SIGCONT))
                fault.hit = bool(victims)
            case "full":
                fault.hit = True
                filler = self.site.project / ".filler"
                fill(filler)
                self._later(fault.seconds, lambda: filler.unlink(missing_ok=True))
            case _:
                fault.hit = True
                _network.cut()
                self._later(fault.seconds, _network.mend)

    def mend(self, *, all: bool = False) -> None:
        """Ends the faults whose time is over, or all of them."""
        due = [entry for entry in self.mending if all or entry[0] <= time.monotonic()]
        self.mending = [entry for entry in self.mending if entry not in due]
        for _, undo in due:
            undo()

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        self.mending.append((time.monotonic() + seconds, undo))

    def _victims(self, target: str) -> list[psutil.Process]:
        if target == "host":
            return [process for process in self.site.processes() if not _is_server(self.site, process)]
        return self.site.processes(target)[:1]


def _is_server(site: Site, process: psutil.Process) -> bool:
    return process.pid in {server.pid for server in site.processes("server")}


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def small_disk(folder: Path) -> bool:
    """Mounts a small file system in a new folder, which needs root. Returns whether that was possible."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "msdarts-soak", str(folder)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def fill(filler: Path) -> None:
    """Takes all free space of a disk."""
    block = b"\0" * 2**20
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while shutil.disk_usage(filler.parent).free:
            file.write(block)
