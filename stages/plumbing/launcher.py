"""Starts one process for each of ``train.devices`` and watches them, with the agent that torchrun uses.

When one rank fails or a signal comes, all ranks end, and the first error is raised as if this process had
met it. Differs from torchrun in two ways: nothing listens beyond the loopback interface (the ranks meet at
a file), and no pickle is exchanged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from stages.errors import MachineError, UserError
from stages.plumbing.devices import FAILURE
from stages.plumbing.runtime import Interrupted
from stages.plumbing.status import next_attempt, own_progress

ENDING = 30  # seconds after which ranks that have not ended are killed


def launch(stage: str, devices: int) -> None:
    """Runs the ranks until they end. Raises the error of the first rank that failed."""
    _check(devices)
    # Otherwise PyTorch warns in every process that looking for unused weights costs time.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder, _restored():
        logging.disable()  # the agent logs tracebacks of errors that are reported in one line
        spec = WorkerSpec(
            role=stage,
            local_world_size=devices,
            entrypoint=sys.executable,
            args=("-m", "stages.plumbing.devices", stage, folder, str(os.getpid())),
            rdzv_handler=_SingleAgent("127.0.0.1", 0, rank=0, world_size=1, run_id=stage, timeout=ENDING),
            max_restarts=0,
        )
        try:
            agent = LocalElasticAgent(spec, DefaultLogsSpecs(folder), shutdown_timeout=ENDING)
            result = cast(RunResult, agent.run())
        except SignalException as ended:
            number = signal.Signals(ended.sigval)
            raise Interrupted(f"interrupted by {number.name}", 128 + number) from None
        if result.is_failed():
            first = next(iter(result.failures.values()))  # the agent itself has ended those that follow
            _raise(stage, Path(folder) / FAILURE, first.local_rank, first.exitcode)


def _check(devices: int) -> None:
    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UserError(
            f"train.devices is {devices}, but this machine has {there} GPUs (CUDA_VISIBLE_DEVICES chooses); set it to"
            f" {there} or less"
        )


class _SingleAgent(StaticTCPRendezvous):
    """Tells the agent that there is no other agent. Agents of several machines would meet over TCP."""

    def next_rendezvous(self) -> RendezvousInfo:
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo("127.0.0.1", 0))


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restores, after the block, the signal handlers and the logging that the agent changes."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    disabled = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _raise(stage: str, word: Path, rank: int, status: int) -> None:
    """Raises the error of the first rank that failed. A rank that was killed has not written one down."""
    if status < 0 or not word.exists():
        ending = (
            f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )
        raise MachineError(
            f"the process of device {rank} {ending}, perhaps for lack of memory; the next run"
            f" {next_attempt(stage, own_progress(stage))}"
        )
    failure = json.loads(word.read_text())
    match failure["status"]:
        case 2:
            error = UserError(failure["message"])
        case 1:
            error = MachineError(failure["message"])
        case status:
            error = Interrupted(failure["message"], status)
    error.add_note(failure["traceback"])  # what --debug shows
    raise error
