"""Running one stage with DVC: a real DVC, small stages of shell and Python."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest
from dvc.repo import Repo
from prefect.client.schemas.objects import State
from prefect.states import Completed

from pipelines import command
from pipelines.graph import Stage, stages, up_to_date
from pipelines.process import Outcome, Stopped, _lines, ended_together, outcome, run_stage
from stages.errors import UserError
from tests.pipelines.conftest import processes_in

# A stage that ignores SIGTERM, with a child in its session and one in another.
DEAF = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "100"])
subprocess.Popen(["sleep", "100"], start_new_session=True)
print("works", flush=True)
time.sleep(100)
"""
GRAPH = """
stages:
  last:
    cmd: cp middle last
    deps: [middle]
    outs: [last]
  middle:
    cmd: cp first middle
    meta: {gpu: true}
    deps: [first]
    outs: [middle]
  first:
    cmd: echo 1 > first
    outs: [first]
  apart:
    cmd: "echo 'error: apart: apart.size is 0; it should be 1' >&2; exit 2"
  machine:
    cmd: "echo 'error: machine: the disk is full' >&2; exit 1"
  killed:
    cmd: sh -c 'kill -9 $$'
  deaf:
    cmd: python deaf.py
  needs:
    cmd: "true"
    deps: [nowhere]
  leaves:
    cmd: sleep 100 &
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "deaf.py").write_text(DEAF)
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_the_graph_is_that_of_dvc(folder: Path) -> None:
    assert [stage.name for stage in stages(folder, "last")] == ["first", "middle", "last"]
    everything = [stage.name for stage in stages(folder)]
    assert sorted(everything) == sorted(
        ["first", "middle", "last", "apart", "machine", "killed", "deaf", "needs", "leaves"]
    )
    assert everything.index("first") < everything.index("middle") < everything.index("last")
    assert stages(folder, "middle")[-1] == Stage("middle", gpu=True, needs=("first",))
    assert stages(folder, "first") == [Stage("first", gpu=False)]


@pytest.mark.parametrize(
    ("target", "hint"), [("lst", "did you mean last?"), ("x", "dvc.yaml has apart, deaf")]
)
def test_an_unknown_target_is_one_line(folder: Path, target: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        stages(folder, target)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_what_ran_and_what_was_up_to_date(folder: Path) -> None:
    heard: list[str] = []
    assert not up_to_date(folder, "first")
    assert run_stage("first", folder, on_line=heard.append) == Outcome(0, True, "")
    assert "Running stage 'first':" in heard
    assert up_to_date(folder, "first")
    assert run_stage("first", folder) == Outcome(0, False, "")
    assert run_stage("first", folder, force=True) == Outcome(0, True, "")
    (folder / "first").write_text("2")
    assert not up_to_date(folder, "first")


def test_how_a_stage_failed_comes_through_dvc(folder: Path) -> None:
    assert run_stage("apart", folder) == Outcome(2, True, "apart: apart.size is 0; it should be 1")
    assert run_stage("machine", folder) == Outcome(1, True, "machine: the disk is full")
    missing = run_stage("needs", folder)
    assert (missing.status, missing.ran) == (2, False)
    assert missing.message == "needs: nowhere does not exist; correct data.root or make it"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_killed_stage_is_recognized_whichever_shell_dvc_starts_it_with(folder: Path, shell: str) -> None:
    # bash becomes the stage, whose signal DVC sees; dash waits for it, and ends with 137 itself.
    if not Path(shell).exists():
        pytest.skip(f"{shell} is not there")
    assert run_stage("killed", folder, environment={"SHELL": shell}) == Outcome(
        1, True, "killed: killed by SIGKILL"
    )


def test_what_is_not_recognized_is_a_failure_of_the_machine() -> None:
    assert outcome("search", 255, ["ERROR: unexpected error"]) == Outcome(
        1, False, "search: unexpected error"
    )
    assert outcome("search", 1, []) == Outcome(1, False, "search: dvc ended with status 1")
    said = ["error: search: no such thing", "ERROR: failed to reproduce 'search': in new words"]
    assert outcome("search", 1, said).status == 1
    beyond = "failed to reproduce 'search': failed to run: python -m stages.search, exited with 255"
    assert outcome("search", 255, [f"ERROR: {beyond}"]) == Outcome(1, False, f"search: {beyond}")


def test_dvc_is_understood_where_the_killed_stage_had_not_ended_its_line() -> None:
    lines = [
        "Running stage 'search':",
        "search epoch 3/60  trERROR: failed to reproduce 'search': failed to run: ",
    ]
    lines[-1] += "python -m stages.search, exited with -9"
    assert outcome("search", 255, lines) == Outcome(1, True, "search: killed by SIGKILL")


def test_the_last_lines_count_also_when_they_are_read_long_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.process._POLL", 0.02)
    process = subprocess.Popen(["echo", "last"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        monkeypatch.setattr(process, "stdout", slowly(output, 0.5))
        process.wait()
        assert list(_lines(process, math.inf)) == ["last"]


def slowly(lines: Iterable[str], seconds: float) -> Iterator[str]:
    """The lines, each that much later."""
    for line in lines:
        time.sleep(seconds)
        yield line


def test_a_process_left_behind_with_the_other_end_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.process.LAST_LINES", 1.0)
    started = time.monotonic()
    assert run_stage("leaves", folder) == Outcome(0, True, "")
    assert time.monotonic() - started < 60
    assert processes_in(folder) == []


def test_no_process_is_left_when_the_caller_is_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.process.GRACE", 1.0)

    def interrupt(line: str) -> None:
        if line == "works":
            assert len(processes_in(folder)) >= 4  # DVC, the stage, its children
            raise TimeoutError

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        run_stage("deaf", folder, on_line=interrupt)
    assert processes_in(folder) == []
    assert time.monotonic() - started < 60
    assert run_stage("first", folder) == Outcome(0, True, "")  # no lock is left either


def test_a_stage_that_takes_too_long_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.process.GRACE", 1.0)
    with pytest.raises(TimeoutError):
        run_stage("deaf", folder, timeout=6)
    assert processes_in(folder) == []


def test_stages_that_other_threads_wait_for_end_with_the_flow(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.process.GRACE", 1.0)
    works = threading.Event()

    def on_line(line: str) -> None:
        if line == "works":
            works.set()

    def interrupted(pool: ThreadPoolExecutor) -> None:
        with ended_together():
            waiting.append(pool.submit(copy_context().run, run_stage, "deaf", folder, on_line=on_line))
            assert works.wait(60)
            raise KeyboardInterrupt

    waiting: list[Future[Outcome]] = []
    with ThreadPoolExecutor() as pool, pytest.raises(KeyboardInterrupt):
        interrupted(pool)
    assert isinstance(waiting[0].exception(), Stopped)
    assert processes_in(folder) == []


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A flow as a command that needs no server, started as at a terminal; the signals' handlers are restored at the end.

    Under nohup, this process has inherited SIGHUP as ignored.
    """
    monkeypatch.setattr(command, "_server", contextlib.nullcontext)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def flow_sent(number: signal.Signals) -> State:
    os.kill(os.getpid(), number)
    return Completed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_flow_goes_out_in_good_order_when_it_is_ended_or_its_terminal_closed(
    signals: None, number: signal.Signals
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.run_flow(lambda: flow_sent(number))
    assert ended.value.code == 128 + number


def test_nohup_is_respected(signals: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert command.run_flow(lambda: flow_sent(signal.SIGHUP)) == 0
