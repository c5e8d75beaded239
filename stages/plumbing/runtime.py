"""Runs a stage as a process: options, lock, signals, outcome, and errors in one line.

Exit status: 0 done, 1 a failure of the machine, 2 a mistake of the user, 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from models.errors import Diverged, InvalidInput
from stages import GARBAGE_THRESHOLD
from stages.errors import MachineError, UserError, whose
from stages.plumbing.settings import PARAMS_FILE, load
from stages.plumbing.status import STATE, begin, end, next_attempt, now, own_progress

TEMPORARY = Path(".dvc/tmp/exps")  # in the project: where DVC and our flows run experiments
WORKSPACES = TEMPORARY / "flows"  # of runs with parameters of their own; each is named as its run
OWNER = "MSDARTS_OWNER"  # id of the flow's process; stages end after it has ended
LOCK_PATIENCE = 60.0  # seconds: an orphan of a killed pipeline notices that and ends by then


class Interrupted(BaseException):
    """A signal, or the end of the pipeline that started this stage.

    Not an Exception, so that no handler catches it by chance.
    """

    def __init__(self, reason: str, status: int):
        super().__init__(reason)
        self.status = status


def run(stage: str, main: Callable[..., None], **arguments: str) -> int:
    """Runs one stage as a command: ``sys.exit(run("search", main))``. Returns the exit status.

    ``main`` gets the Params and, by name, the optional ``arguments`` of the command line (name -> help). An
    argument that was not given is None.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{stage}", description=sys.modules["__main__"].__doc__
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for name, meaning in arguments.items():
        parser.add_argument(name, nargs="?", help=meaning)
    given = vars(parser.parse_args())
    debug = given.pop("debug")
    started, began = now(), False
    interruptible()
    try:
        params = load()
        STATE.mkdir(exist_ok=True)
        with _locked(stage):
            begin(stage)
            began = True
            main(params, **given)
            end(stage, started, 0)
        _ignore_signals()  # all is done
    except (Exception, Interrupted) as error:
        _ignore_signals()  # this process is ending already
        status, message = outcome(error)
        _tell(stage, started, status, message)
        if isinstance(error, Interrupted):
            then = (
                f"; `dvc repro` {next_attempt(stage, own_progress(stage))}" if began else " before it began"
            )
            # A command with arguments is no stage, and calling it again may do something else.
            print(f"{stage}: {message}{then if not (arguments and began) else ''}", file=sys.stderr)
        elif debug:
            raise
        else:
            print(f"error: {stage}: {message}", file=sys.stderr)
        return status
    return 0


def settled() -> None:
    """Collects garbage as usual from here on, because garbage of a training holds tensors; what is there already stays."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLD)


def _tell(stage: str, started: datetime, status: int, message: str) -> None:
    """Records how the stage failed. If the record cannot be written, on a full disk, the first error is still shown."""
    if not PARAMS_FILE.exists():  # not in the folder of a project
        return
    try:
        end(stage, started, status, message)
    except OSError as error:
        print(f"{stage}: its outcome could not be written ({error.strerror or error})", file=sys.stderr)


def outcome(error: Exception | Interrupted) -> tuple[int, str]:
    """The exit status for an error, and one line that says what went wrong."""
    match error:
        case Interrupted():
            return error.status, str(error)
        case UserError() | InvalidInput() | Diverged():
            return 2, str(error)
        case MachineError():
            return 1, str(error)
        case OSError():
            return outcome(whose(error))
        case _ if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
            text = " ".join(str(error).split())[:200]
            return (
                1,
                f"there is not enough memory ({text or 'MemoryError'}); end what else uses it, or lower batch_size",
            )
        case _ if os.strerror(errno.ENOSPC) in str(
            error
        ):  # of a library that raises errors of its own, as safetensors does
            return outcome(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        case _:  # a defect of the program
            text = " ".join(str(error).split())[:300]
            return 1, f"{type(error).__name__}: {text}; run with --debug for the traceback"


def interruptible() -> None:
    """Makes SIGTERM and SIGINT raise Interrupted from now on."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}", 128 + number)


def _ignore_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _locked(stage: str) -> Iterator[None]:
    """Holds the stage's lock, so that an orphan of a killed pipeline and its successor do not write the same files."""
    lock = FileLock(STATE / f"{stage}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{stage}: waits until another process of this stage has ended", file=sys.stderr, flush=True)
        try:
            lock.acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise MachineError(
                f"another process runs this stage in {Path.cwd()}; wait until that process"
                " has ended, or end it, and try again"
            ) from None
    try:
        yield
    finally:
        lock.release()


def pipeline_process() -> psutil.Process | None:
    """The process of the pipeline that runs this stage: its outermost ancestor that runs DVC, if there is one."""
    found = None
    for ancestor in psutil.Process().parents():
        try:
            if any(Path(word).name == "dvc" for word in ancestor.cmdline()[:3]):
                found = ancestor
        except psutil.Error:
            continue
    return found


def _alive(process: psutil.Process) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Watch:
    """Ends this stage when DVC or the flow that started it has ended, because nobody would record the results."""

    def __init__(self) -> None:
        self.processes = {"dvc process": pipeline_process()} if "DVC_STAGE" in os.environ else {}
        if owner := os.environ.get(OWNER):
            try:
                self.processes["flow"] = psutil.Process(int(owner))
            except psutil.NoSuchProcess:
                raise _orphaned("flow") from None

    def __call__(self) -> None:
        for name, process in self.processes.items():
            if process is not None and not _alive(process):
                raise _orphaned(name)


def _orphaned(name: str) -> Interrupted:
    return Interrupted(f"stopped, because the {name} that started it has ended", 143)
