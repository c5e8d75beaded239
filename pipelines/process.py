"""One stage as a process of DVC: its lines as they come, how far it is, and how it ended.

The stage tells its progress and its outcome in files (stages/plumbing/status.py). A killed stage tells no outcome; then DVC
is asked. Whatever nobody explains counts as a failure of the machine, which is retried.
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
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from pipelines.dvc_internals import (
    all_stages,
    exit_status_of_stage,
    last_error,
    missing_dependencies,
    repro_command,
)
from stages.errors import UserError, passes, remedy
from stages.plumbing.runtime import OWNER
from stages.plumbing.status import ATTEMPT, Outcome, Progress, next_attempt

GRACE = 20.0  # seconds that a stage has to save where it is; a Prefect worker gives the whole flow run 30
LOCK_GRACE = 5.0  # seconds that DVC has to release its locks
LAST_LINES = 5.0  # seconds that reading the last lines of an ended process may take on a busy machine
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
_POLL = 0.5  # seconds between two looks at the progress, the time, and whether the flow is ending
_SHOW = 2.0  # seconds between two progresses that are passed on
_KEPT_LINES = 200  # in which DVC says why it failed

# What Python says about a module that it cannot load: code, or the installation.
_BROKEN_CODE = re.compile(r"(ModuleNotFoundError|ImportError|SyntaxError|IndentationError|TabError): ")
# A stage's own word for the user's mistake, and a shell's for a command that it cannot run or find.
_NOT_WORTH_A_RETRY = (2, 126, 127)

_ENDING: ContextVar[threading.Event | None] = ContextVar("_ENDING", default=None)


class Stopped(BaseException):
    """The flow that a stage is part of is ending. Not an Exception: nobody tries the stage again."""


@contextlib.contextmanager
def ended_together() -> Iterator[None]:
    """Ends all stages that were started within the block when an exception leaves it.

    That includes stages started by threads that have the block's context. A signal reaches the main thread only, and this
    tells the threads that wait for a stage.
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
class StageResult:
    """How running a stage ended."""

    status: int  # 0 done, 1 a failure of the machine, 2 the user's mistake
    ran: bool  # False: it is up to date, or could not start
    message: str  # one line that says what went wrong; empty when done


def run_stage(
    name: str,
    folder: Path,
    *,
    force: bool = False,
    timeout: float = math.inf,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    checks: Sequence[Callable[[], None]] = (),
) -> StageResult:
    """Runs ``dvc repro`` for this one stage in ``folder``.

    Calls ``on_line`` with each printed line, ``on_progress`` with the stage's progress every few seconds and at the end, and
    each of ``checks`` at least every second, which may raise to end the stage.
    Waits for other DVC processes of the folder. Raises TimeoutError after ``timeout`` seconds; its message says how the next run
    goes on. However the call ends, even
    by what a callback, a signal or a cancellation raises, no process of the stage is left.
    """
    command = repro_command(name, force=force)
    return _run(name, command, folder, _result, timeout, environment, on_line, on_progress, checks)


def run_command(
    name: str,
    command: Sequence[str],
    folder: Path,
    *,
    timeout: float = math.inf,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> StageResult:
    """Runs a command that is no stage of DVC but tells its progress and outcome as stages do, under ``name``.

    All else is as for ``run_stage``.
    """
    return _run(name, command, folder, _own_result, timeout, environment, on_line, on_progress)


def _run(
    name: str,
    command: Sequence[str],
    folder: Path,
    result: Callable[[str, Path, str, int, Sequence[str]], StageResult],
    timeout: float,
    environment: Mapping[str, str] | None,
    on_line: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    checks: Sequence[Callable[[], None]] = (),
) -> StageResult:
    attempt = uuid4().hex
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    variables = {**(environment or {}), ATTEMPT: attempt}
    watch = _ProgressWatch(name, folder, attempt, on_progress)
    try:
        with _started(command, folder, variables) as process:
            for line in _lines(process, time.monotonic() + timeout):
                for check in checks:
                    check()
                watch.look()
                if line is not None:
                    lines.append(line)
                    on_line(line)
            status = process.wait()
            watch.look(last=True)
            return result(name, folder, attempt, status, lines)
    except TimeoutError:
        watch.look(last=True)
        raise TimeoutError(f"the next run {next_attempt(name, watch.told)}") from None


class _ProgressWatch:
    """Passes on what a stage writes about its progress in one attempt."""

    def __init__(self, name: str, folder: Path, attempt: str, tell: Callable[[Progress], None]):
        self.name, self.folder, self.attempt, self.tell = name, folder, attempt, tell
        self.told: Progress | None = None
        self.next = 0.0

    def look(self, *, last: bool = False) -> None:
        """Passes on the progress if there is news; unless it is the last, only every few seconds."""
        if not last and time.monotonic() < self.next:
            return
        progress = Progress.read(self.folder, self.name, self.attempt)
        if progress is not None and progress != self.told:
            self.tell(progress)
            self.told, self.next = progress, time.monotonic() + _SHOW


def _result(name: str, folder: Path, attempt: str, status: int, lines: Sequence[str]) -> StageResult:
    """What the stage itself told, or else what DVC knows; ``status`` is DVC's."""
    outcome = Outcome.read(folder, name, attempt)
    if status == 0:
        return StageResult(0, outcome is not None, "")
    if outcome is not None and outcome.status != 0:
        return StageResult(2 if outcome.status == 2 else 1, True, f"{name}: {outcome.message}")
    began = outcome is not None or Progress.read(folder, name, attempt) is not None
    if not began and (missing := missing_dependencies(folder, name)):
        mend = "create it, or correct data.root or dvc.yaml, whichever names it"
        return StageResult(2, False, f"{name}: {missing[0]} does not exist; {mend}")
    ended = exit_status_of_stage(lines)
    if outcome is None and ended in _NOT_WORTH_A_RETRY:
        said = [line for line in lines if line.startswith("error: ")]
        return StageResult(
            2, began, said[-1].removeprefix("error: ") if said else f"{name}: {last_error(lines)}"
        )
    if outcome is None and (killer := _signal_of(ended)):
        return StageResult(1, began, f"{name}: killed by {killer.name}")
    if lasting := _lasting(folder, lines):
        return StageResult(2, began, f"{name}: {lasting}")
    return StageResult(1, began, f"{name}: {last_error(lines) or f'dvc ended with status {status}'}")


def _lasting(folder: Path, lines: Sequence[str]) -> str | None:
    """What another attempt would meet again, by the words of Python about the code or of DVC about its files; None: nothing."""
    if broken := next((line for line in lines if _BROKEN_CODE.match(line)), None):
        return None if passes(broken) else broken
    said = last_error(lines)
    if said is None:
        try:
            all_stages(folder)
        except UserError as error:  # DVC prints such mistakes in many lines
            return str(error)
        return None
    if "is already tracked by SCM" in said:
        return f"{said}; `git rm --cached` it"
    mend = remedy(said)
    return mend and f"{said}{mend}"


def _own_result(name: str, folder: Path, attempt: str, status: int, lines: Sequence[str]) -> StageResult:
    """What a command itself told, or else its exit status and its last line."""
    if status == 0:
        return StageResult(0, True, "")
    outcome = Outcome.read(folder, name, attempt)
    if outcome is not None and outcome.status != 0:
        return StageResult(2 if outcome.status == 2 else 1, True, outcome.message)
    if status < 0:
        return StageResult(1, True, f"killed by {signal.Signals(-status).name}")
    said = lines[-1].removeprefix("error: ") if lines else f"ended with status {status}"
    return StageResult(2 if status in _NOT_WORTH_A_RETRY else 1, True, said)


def _signal_of(status: int | None) -> signal.Signals | None:
    """The signal that ended a stage: DVC's -9, or the 137 of a shell (dash) that waits for the stage as its child."""
    if status is None:
        return None
    with contextlib.suppress(ValueError):
        return signal.Signals(-status if status < 0 else status - 128)
    return None


@contextlib.contextmanager
def _started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The command in a session of its own; when the block has ended, no process of that session is left."""
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


def _lines(process: subprocess.Popen[str], deadline: float) -> Iterator[str | None]:
    """The lines as they come, and None whenever there was none for a while. Raises TimeoutError after ``deadline``.

    A separate thread reads them, because nothing interrupts a thread that waits for a line.
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
            if time.monotonic() - ended > LAST_LINES:  # a process that it left behind holds the other end
                return
            yield None
            continue
        if line is None:
            return
        if text := COLOUR.sub("", line).rstrip():
            yield text


def _end(process: subprocess.Popen[str]) -> None:
    """Ends what is left of the session: first the stage, so that it saves where it is, then DVC, as Ctrl-C would."""
    stage = {member for member in _session(process.pid) if member.pid != process.pid}
    # Also processes that have moved to sessions of their own: a stage on several devices ends those itself.
    tree = set(stage)
    for member in stage:
        with contextlib.suppress(psutil.NoSuchProcess):
            tree.update(member.children(recursive=True))
    for member in stage:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, deaf = psutil.wait_procs(list(tree), timeout=GRACE)
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
    """The processes of a session, including those whose parent has ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
