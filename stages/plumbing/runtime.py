"""What every stage's process does around its work: options, lock, signals, and errors in one line.

Exit status: 0 done, 1 failure of the machine, 2 the user's mistake, 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from models.errors import Diverged, InvalidInput
from stages.errors import MachineError, UserError
from stages.plumbing.settings import load

STATE = Path(".checkpoints")  # what stages keep between attempts; undeclared, so that DVC leaves it alone
PIPELINE = STATE / "pipeline.json"  # the MLflow run that the stages of one execution have in common
OWNER = "MSDARTS_OWNER"  # id of the process, a flow, that runs DVC and ends with it
LOCK_PATIENCE = 60.0  # seconds to wait for an orphan of a killed pipeline to notice and end


class Interrupted(BaseException):
    """A signal, or the end of the pipeline that started this stage. Not an Exception: nobody catches it by chance."""

    def __init__(self, reason: str, status: int):
        super().__init__(reason)
        self.status = status


def run(stage: str, main: Callable[..., None], **arguments: str) -> int:
    """Runs one stage as a command: ``sys.exit(run("search", main))``. Returns the exit status.

    ``main`` gets the Params, and by name the optional ``arguments`` of the command line (name -> help; None if not given).
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{stage}", description=sys.modules["__main__"].__doc__
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for name, meaning in arguments.items():
        parser.add_argument(name, nargs="?", help=meaning)
    given = vars(parser.parse_args())
    debug = given.pop("debug")
    interruptible()
    try:
        params = load()
        STATE.mkdir(exist_ok=True)
        with _only_one(stage):
            main(params, **given)
    except Interrupted as interruption:
        print(f"{stage}: {interruption}; `dvc repro` goes on from the last epoch", file=sys.stderr)
        return interruption.status
    except Exception as error:
        if debug:
            raise
        status, message = outcome(error)
        print(f"error: {stage}: {message}", file=sys.stderr)
        return status
    return 0


def outcome(error: Exception | Interrupted) -> tuple[int, str]:
    """The exit status that an error stands for, and what to say of it in one line."""
    match error:
        case Interrupted():
            return error.status, str(error)
        case UserError() | InvalidInput() | Diverged():
            return 2, str(error)
        case MachineError():
            return 1, str(error)
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            return 1, f"{error.strerror or error}{where}"
        case _:  # a defect of ours: say so in one line, and where to find more
            text = " ".join(str(error).split())[:300]
            return 1, f"{type(error).__name__}: {text}; run with --debug for the traceback"


def interruptible() -> None:
    """From here on SIGTERM and SIGINT raise Interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}", 128 + number)


class _only_one:
    """Holds the stage's lock: an orphan of a killed pipeline and its successor must not write the same files."""

    def __init__(self, stage: str):
        self.stage, self.lock = stage, FileLock(STATE / f"{stage}.lock")

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            print(
                f"{self.stage}: waits for another process of this stage to end", file=sys.stderr, flush=True
            )
            try:
                self.lock.acquire(timeout=LOCK_PATIENCE)
            except Timeout:
                raise MachineError(
                    f"another process runs this stage in {Path.cwd()}; wait for it or end it, then try again"
                ) from None

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def pipeline_process() -> psutil.Process | None:
    """The process this stage is a part of: the outermost of its ancestors that runs DVC, if any."""
    found = None
    for ancestor in psutil.Process().parents():
        try:
            if any(Path(word).name == "dvc" for word in ancestor.cmdline()[:3]):
                found = ancestor
        except psutil.Error:
            continue
    return found


def _alive(process: psutil.Process) -> bool:
    """Running, and not a zombie that nobody has waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Watch:
    """Ends this stage when the process that started it is gone, DVC or a flow: nobody would record its results."""

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
    return Interrupted(f"ended, for the {name} that started it is gone", 143)
