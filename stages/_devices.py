"""Several devices, one training: the stage's process starts one process for each of ``train.devices`` and looks after them.

``python -m stages.search`` stays the command. With one device the work is done in that process. With more, it holds the lock
and starts the ranks, ``python -m stages._devices``, through the agent that torchrun runs: where one fails or a signal comes,
all end. Each rank does the stage's ``main`` within a process group: nccl on GPUs, gloo on CPUs. Rank 0 alone writes and
speaks; what goes wrong first is told by the stage's process, in one line and with the exit status of one process.

Differs from torchrun in that nothing listens beyond the loopback interface (ranks meet at a file) and no pickle is exchanged.
GPUs of several machines are not covered.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import tempfile
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

from stages._runtime import Interrupted, interruptible, outcome
from stages.errors import MachineError, UserError
from stages.params import Params, load

FAILURE = "failure.json"  # where the first rank that fails says why
ENDING = 30  # seconds that ranks have to end before they are killed


def on_devices(stage: str) -> Callable[[Callable[[Params], None]], Callable[[Params], None]]:
    """Has the main function of a stage done by one process for each of ``train.devices``."""

    def decorated(main: Callable[[Params], None]) -> Callable[[Params], None]:
        @functools.wraps(main)
        def on_all(params: Params) -> None:
            if params.train.devices == 1 or dist.is_initialized():
                main(params)
            else:
                _check(params.train.devices)
                _launch(stage, params.train.devices)

        return on_all

    return decorated


def _check(devices: int) -> None:
    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UserError(
            f"train.devices is {devices}, but there are {there} GPUs here (CUDA_VISIBLE_DEVICES chooses); set it to"
            f" {there} or less"
        )


def _launch(stage: str, devices: int) -> None:
    """Runs the ranks to their end. Raises what the first one that failed ended with."""
    # Seconds to import, and only needed here.
    from torch.distributed.elastic.agent.server import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException

    # PyTorch remarks in every process that looking for unused weights costs time.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder, _left_as_it_was():
        logging.disable()  # the agent's: tracebacks of what is told in one line
        spec = WorkerSpec(
            role=stage,
            local_world_size=devices,
            entrypoint=sys.executable,
            args=("-m", "stages._devices", stage, folder, str(os.getpid())),
            rdzv_handler=_meeting_here(),
            max_restarts=0,
        )
        try:
            result = LocalElasticAgent(spec, DefaultLogsSpecs(folder), shutdown_timeout=ENDING).run()
        except SignalException as ended:
            number = signal.Signals(ended.sigval)
            raise Interrupted(f"interrupted by {number.name}", 128 + number) from None
        if result.is_failed():
            first = next(iter(result.failures.values()))  # after it come those that the agent ended
            _raise(Path(folder) / FAILURE, first.local_rank, first.exitcode)


def _meeting_here():
    """Tells the agent that it is the only one; those of several machines would meet over TCP."""
    from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    class Here(StaticTCPRendezvous):
        def next_rendezvous(self) -> RendezvousInfo:
            return RendezvousInfo(dist.HashStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", 0))

    return Here("127.0.0.1", 0, rank=0, world_size=1, run_id="one-machine", timeout=ENDING)


@contextlib.contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Restores the signal handlers and the logging that the agent changes."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    disabled = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _raise(word: Path, rank: int, status: int) -> None:
    """Raises in this process what the first rank that failed ended with, and left word of unless it was killed."""
    if status < 0 or not word.exists():
        ending = (
            f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )
        raise MachineError(
            f"the process of device {rank} {ending}, perhaps for lack of memory; run the stage again to go on from the"
            " last epoch"
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


def main(stage: str, folder: Path, launcher: int) -> int:
    """One rank. Returns the exit status; the first to fail leaves word for the launcher."""
    _end_with(launcher)
    interruptible()
    rank = int(os.environ["RANK"])
    if rank > 0:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (to the end)
    # The weights of depthwise convolutions are the same in both memory formats, and the exchange is told otherwise.
    warnings.filterwarnings("ignore", "Grad strides do not match", UserWarning)
    try:
        with _process_group(folder, rank, int(os.environ["WORLD_SIZE"])):
            import_module(f"stages.{stage}").main(load())
    except (Exception, Interrupted) as error:
        for number in (signal.SIGTERM, signal.SIGINT):  # this rank is ending already
            signal.signal(number, signal.SIG_IGN)
        status, message = outcome(error)
        with contextlib.suppress(FileExistsError), (folder / FAILURE).open("x") as file:
            trace = "".join(traceback.format_exception(error))
            json.dump({"status": status, "message": message, "traceback": trace}, file)
        return status
    return 0


def _end_with(launcher: int) -> None:
    """Ends this process when the one that started it was killed, whatever it is doing: a rank may wait for another for ever."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        os._exit(143)

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
