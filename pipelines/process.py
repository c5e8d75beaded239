"""One stage as a process of DVC: its lines as they come, its end whatever happens, and what its exit status means.

DVC hides the exit status of a stage behind its own, but prints it; the stage says in one line what is wrong
(``error: STAGE: ...``, stages/plumbing/runtime.py). Both lines are read here, and tests hold them. What is not recognized counts
as a failure of the machine, which is tried again.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import psutil

from stages.plumbing.runtime import OWNER

GRACE = 20.0  # seconds a stage has to put its affairs in order; a Prefect worker gives the whole flow run 30
LOCK_GRACE = 5.0  # seconds that DVC has to release its locks
LAST_LINES = 5.0  # seconds that the last lines of an ended process may take to be read on a busy machine
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
_POLL = 0.5  # seconds: between two looks at whether the time is over, a signal or a lost lease has come

_STATUS = re.compile(r"ERROR: failed to reproduce '.+': failed to run: .+, exited with (-?\d+)$")
_MISSING = re.compile(r"ERROR: failed to reproduce '(.+)': dependency '(.+)' does not exist")
_STAGE_ERROR = re.compile(r"error: (\w+: .+)")
_ENDING: ContextVar[threading.Event | None] = ContextVar("_ENDING", default=None)


class Stopped(BaseException):
    """The flow that a stage is a part of ends. Not an Exception: nobody tries the stage again."""


@contextlib.contextmanager
def ended_together() -> Iterator[None]:
    """Stages started within the block, also by threads that have its context, end when an exception leaves it.

    A signal reaches the main thread alone: those that wait for a stage in other threads are told by this.
    """
    ending = threading.Event()
    before = _ENDING.set(ending)
    try:
        yield
    except BaseException:
        ending.set()
        raise
    finally:
        _ENDING.reset(before)


@dataclass(frozen=True)
class Outcome:
    """How a stage ended."""

    status: int  # 0 done, 1 a failure of the machine, 2 the user's mistake
    ran: bool  # False: nothing that it depends on has changed, its results are as they were
    message: str  # one line that says what is wrong; empty when done


def run_stage(
    name: str,
    folder: Path,
    *,
    force: bool = False,
    timeout: float = math.inf,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Runs ``dvc repro`` for this one stage in ``folder``; ``on_line`` is called with each line that it prints.

    Other DVC processes of the folder are waited for. Raises TimeoutError after ``timeout`` seconds. However the call
    ends, also by what ``on_line``, a signal or a cancellation raises, no process of the stage is left.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    lines: list[str] = []
    with _started([*command, *(["--force"] if force else [])], folder, environment or {}) as process:
        for line in _lines(process, time.monotonic() + timeout):
            lines.append(line)
            on_line(line)
        return outcome(name, process.wait(), lines)


def outcome(name: str, status: int, lines: Sequence[str]) -> Outcome:
    """What the exit status of DVC and its lines say of the stage."""
    ran = any(line.startswith(f"Running stage '{name}'") for line in lines)
    if status == 0:
        return Outcome(0, ran, "")
    for line in reversed(lines):
        if missing := _MISSING.fullmatch(line):
            return Outcome(2, ran, f"{missing[1]}: {missing[2]} does not exist; correct data.root or make it")
    # What was killed may have ended within a line, which DVC's then goes on.
    stage_status = next((int(found[1]) for line in lines if (found := _STATUS.search(line))), None)
    said = [found[1] for line in lines if (found := _STAGE_ERROR.fullmatch(line))]
    if said:
        return Outcome(2 if stage_status == 2 else 1, ran, said[-1])
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if stage_status is not None and (killer := _signal_of(stage_status)):
        return Outcome(1, ran, f"{name}: killed by {killer.name}")
    return Outcome(1, ran, f"{name}: {errors[-1] if errors else f'dvc ended with status {status}'}")


def _signal_of(status: int) -> signal.Signals | None:
    """The signal that ended a stage: DVC's -9, or the 137 of a shell (dash) that waits for the stage as its child."""
    with contextlib.suppress(ValueError):
        return signal.Signals(-status if status < 0 else status - 128)
    return None


@contextlib.contextmanager
def _started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The process in a session of its own, of which nothing is left when the block has ended."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", OWNER: str(os.getpid()), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)
        assert process.stdout is not None
        process.stdout.close()


def _lines(process: subprocess.Popen[str], deadline: float) -> Iterator[str]:
    """The lines as they come, until a time of the monotonic clock.

    They are read in a thread of its own, for nothing interrupts one that waits for a line.
    """
    arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # closed while we read
            for line in process.stdout:
                arrived.put(line)
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    ending, ended = _ENDING.get(), math.inf
    while True:
        if ending is not None and ending.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            line = arrived.get(timeout=_POLL)
        except queue.Empty:
            if process.poll() is not None:
                ended = min(ended, time.monotonic())
            if time.monotonic() - ended > LAST_LINES:  # a process it left behind holds the other end
                return
            continue
        if line is None:
            return
        if text := COLOUR.sub("", line).rstrip():
            yield text


def _end(process: subprocess.Popen[str]) -> None:
    """Ends what is left of the session: the stage first, so that it notes where it was; then DVC, by Ctrl-C."""
    stage = {member for member in _session(process.pid) if member.pid != process.pid}
    below = set(
        stage
    )  # with processes that moved to sessions of their own: a stage on several devices ends them itself
    for member in stage:
        with contextlib.suppress(psutil.NoSuchProcess):
            below.update(member.children(recursive=True))
    for member in stage:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, deaf = psutil.wait_procs(list(below), timeout=GRACE)
    for member in deaf:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LOCK_GRACE if stage else 0)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LOCK_GRACE)
    for member in _session(process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def _session(session: int) -> list[psutil.Process]:
    """The processes of a session, also those whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
