"""Several devices, one training: how a stage works when ``train.devices`` is more than one.

``python -m stages.search`` stays the command. With one device, its process does the work. With more, it
holds the lock and starts the ranks (stages/plumbing/launcher.py), ``python -m stages.plumbing.devices``.
Each rank runs the stage's ``main`` within a process group, nccl on GPUs and gloo on CPUs. Rank 0 alone
writes files and prints. GPUs of several machines are not covered.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from stages.params import Params
from stages.plumbing.runtime import Interrupted, interruptible, outcome
from stages.plumbing.settings import load

FAILURE = "failure.json"  # in which the first rank that fails says why


def on_devices(stage: str) -> Callable[[Callable[[Params], None]], Callable[[Params], None]]:
    """Lets one process for each of ``train.devices`` run the main function of a stage."""

    def decorated(main: Callable[[Params], None]) -> Callable[[Params], None]:
        @functools.wraps(main)
        def on_all(params: Params) -> None:
            if params.train.devices == 1 or dist.is_initialized():
                main(params)
            else:
                from stages.plumbing.launcher import (
                    launch,  # prints a greeting on a Mac when it is imported
                )

                launch(stage, params.train.devices)

        return on_all

    return decorated


def main(stage: str, folder: Path, launcher: int) -> int:
    """Runs one rank and returns its exit status. The first rank that fails writes down why."""
    _end_with(launcher, folder)
    interruptible()
    rank = int(os.environ["RANK"])
    if rank > 0:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (open until the process ends)
    # The weights of depthwise convolutions are the same in both memory formats, but
    # DistributedDataParallel warns that the formats differ.
    warnings.filterwarnings("ignore", "Grad strides do not match", UserWarning)
    try:
        with _process_group(folder, rank, int(os.environ["WORLD_SIZE"])):
            import_module(f"stages.{stage}").main(load())
    except (Exception, Interrupted) as error:
        for number in (signal.SIGTERM, signal.SIGINT):  # because this rank is ending already
            signal.signal(number, signal.SIG_IGN)
        status, message = outcome(error)
        with contextlib.suppress(FileExistsError), (folder / FAILURE).open("x") as file:
            trace = "".join(traceback.format_exception(error))
            json.dump({"status": status, "message": message, "traceback": trace}, file)
        return status
    return 0


def _end_with(launcher: int, folder: Path) -> None:
    """Ends this process when the launcher has been killed.

    Without this, a rank could wait for ever for another rank that never answers.
    """

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.2)
        shutil.rmtree(folder, ignore_errors=True)  # as the launcher would have done
        os._exit(143)

    if os.getppid() != launcher:
        watch()
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _process_group(folder: Path, rank: int, devices: int) -> Iterator[None]:
    loopback = next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(address.address == "127.0.0.1" for address in addresses)
    )
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=devices)
    try:
        yield
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
