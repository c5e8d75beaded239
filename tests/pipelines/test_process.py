"""Running one stage with the real DVC; the stages are a few lines of shell or Python."""

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
from pipelines.dvc_internals import up_to_date
from pipelines.graph import Stage, stages
from pipelines.process import StageResult, Stopped, _lines, ended_together, run_stage
from stages.errors import UserError
from stages.plumbing.status import Progress
from tests.pipelines.conftest import processes_in
from tests.stages.conftest import ROOT

# A stage that ignores SIGTERM, with a child in its session and one in another.
DEAF = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "100"])
subprocess.Popen(["sleep", "100"], start_new_session=True)
print("works", flush=True)
time.sleep(100)
"""
# A stage that tells its flow what a real one does: that it has begun, how far it is, how it ended.
TELLS = """
import sys, time
from stages.plumbing import status
name, exit_status, message, pause = sys.argv[1:]
started = status.now()
status.begin(name)
for epoch in (1, 2, 3):
    status.ProgressFile(name).write(epoch=epoch, epochs=3, step=1, steps=1, line=f"{name} epoch {epoch}/3")
    time.sleep(float(pause))
status.end(name, started, int(exit_status), message)
sys.exit(int(exit_status))
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
    cmd: python tells.py first 0 '' 0 && echo 1 > first
    outs: [first]
  apart:
    cmd: python tells.py apart 2 'apart.size is 0; it should be 1' 0
  mistaken:
    cmd: >-
      python -c 'import sys; print("error: mistaken: no disk"); sys.exit(2)'
  uncommanded:
    cmd: no-such-command
  machine:
    cmd: python tells.py machine 1 'the disk is full' 0
  slow:
    cmd: python tells.py slow 0 '' 0.5
  unrecorded:
    cmd: python tells.py unrecorded 0 '' 0
    outs: [nothing]
  breaks:
    cmd: python -c '1 / 0'
  unfinished-line:
    cmd: printf 'search epoch 3/60  tr' && sh -c 'kill -9 $$'
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "deaf.py").write_text(DEAF)
    (tmp_path / "tells.py").write_text(TELLS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_the_graph_is_that_of_dvc(folder: Path) -> None:
    assert [stage.name for stage in stages(folder, "last")] == ["first", "middle", "last"]
    everything = [stage.name for stage in stages(folder)]
    assert len(everything) == len(set(everything)) == GRAPH.count("cmd:")
    assert everything.index("first") < everything.index("middle") < everything.index("last")
    assert stages(folder, "middle")[-1] == Stage("middle", gpu=True, needs=("first",))
    assert stages(folder, "first") == [Stage("first", gpu=False)]


@pytest.mark.parametrize(
    ("target", "hint"), [("lst", "did you mean last?"), ("x", "dvc.yaml has apart, breaks, deaf")]
)
def test_an_unknown_target_is_one_line(folder: Path, target: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        stages(folder, target)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_what_ran_and_what_was_up_to_date(folder: Path) -> None:
    heard: list[str] = []
    assert not up_to_date(folder, "first")
    assert run_stage("first", folder, on_line=heard.append) == StageResult(0, True, "")
    assert "Running stage 'first':" in heard
    assert up_to_date(folder, "first")
    assert run_stage("first", folder) == StageResult(0, False, "")
    assert run_stage("first", folder, force=True) == StageResult(0, True, "")
    (folder / "first").write_text("2")
    assert not up_to_date(folder, "first")


def test_how_a_stage_failed_is_what_it_told(folder: Path) -> None:
    assert run_stage("apart", folder) == StageResult(2, True, "apart: apart.size is 0; it should be 1")
    assert run_stage("machine", folder) == StageResult(1, True, "machine: the disk is full")


def test_a_stage_that_could_tell_nothing_is_judged_by_its_exit_status(folder: Path) -> None:
    assert run_stage("mistaken", folder) == StageResult(2, False, "mistaken: no disk")
    assert run_stage("uncommanded", folder).status == 2


def test_a_missing_dependency_is_the_users_mistake_unless_another_stage_makes_it(folder: Path) -> None:
    missing = run_stage("needs", folder)
    assert (missing.status, missing.ran) == (2, False)
    assert missing.message.startswith("needs: nowhere does not exist; create it, or correct data.root")
    unmade = run_stage("middle", folder)
    assert (unmade.status, unmade.ran) == (1, False)


def test_progress_is_passed_on_as_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.process._SHOW", 0.0)
    monkeypatch.setattr("pipelines.process._POLL", 0.05)
    heard: list[Progress] = []
    assert run_stage("slow", folder, on_progress=heard.append).ran
    assert [progress.line for progress in heard if progress.line] == [f"slow epoch {n}/3" for n in (1, 2, 3)]
    assert heard[-1].fraction == 1


def test_the_last_progress_is_passed_on_however_fast_it_came(folder: Path) -> None:
    heard: list[Progress] = []
    assert run_stage("first", folder, on_progress=heard.append).ran
    assert heard[-1].line == "first epoch 3/3"


def test_what_an_earlier_attempt_told_is_not_taken_for_this_one(folder: Path) -> None:
    assert run_stage("apart", folder).status == 2
    (folder / "tells.py").write_text("import os; os.kill(os.getpid(), 9)")
    heard: list[Progress] = []
    killed = run_stage("apart", folder, on_progress=heard.append)
    assert killed == StageResult(1, False, "apart: killed by SIGKILL")
    assert heard == []


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_killed_stage_is_recognized_whichever_shell_dvc_starts_it_with(folder: Path, shell: str) -> None:
    # bash becomes the stage, whose signal DVC sees; dash waits for the stage, and ends with 137 itself.
    if not Path(shell).exists():
        pytest.skip(f"{shell} is not there")
    for name in ("killed", "unfinished-line"):
        result = run_stage(name, folder, environment={"SHELL": shell})
        assert result == StageResult(1, False, f"{name}: killed by SIGKILL")


def test_what_the_stage_did_not_tell_is_a_failure_of_the_machine_in_the_words_of_dvc(folder: Path) -> None:
    crashed = run_stage("breaks", folder)
    assert (crashed.status, crashed.ran) == (1, False)
    assert crashed.message.startswith("breaks: failed to reproduce 'breaks'")
    unrecorded = run_stage("unrecorded", folder)  # the stage is content, DVC misses what it should have made
    assert (unrecorded.status, unrecorded.ran) == (1, True)
    assert "nothing" in unrecorded.message


def test_the_last_lines_count_even_when_they_are_read_long_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.process._POLL", 0.02)
    process = subprocess.Popen(["echo", "last"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        monkeypatch.setattr(process, "stdout", slowly(output, 0.5))
        process.wait()
        assert [line for line in _lines(process, math.inf) if line is not None] == ["last"]


def slowly(lines: Iterable[str], seconds: float) -> Iterator[str]:
    """The lines, each of them delayed by ``seconds``."""
    for line in lines:
        time.sleep(seconds)
        yield line


def test_a_process_left_behind_that_holds_the_other_end_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.process.LAST_LINES", 1.0)
    started = time.monotonic()
    assert run_stage("leaves", folder).status == 0
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
    assert run_stage("first", folder) == StageResult(0, True, "")  # nor is a lock left


def test_a_stage_that_takes_too_long_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.process.GRACE", 1.0)
    with pytest.raises(TimeoutError, match="^the next run starts deaf again$"):
        run_stage("deaf", folder, timeout=3)
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

    waiting: list[Future[StageResult]] = []
    with ThreadPoolExecutor() as pool, pytest.raises(KeyboardInterrupt):
        interrupted(pool)
    assert isinstance(waiting[0].exception(), Stopped)
    assert processes_in(folder) == []


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A flow as a command without a server, started as at a terminal; signal handlers are restored at the end.

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
def test_a_flow_ends_in_good_order_when_it_is_ended_or_its_terminal_closes(
    signals: None, number: signal.Signals
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.run_flow(lambda: flow_sent(number))
    assert ended.value.code == 128 + number


def test_nohup_is_respected(signals: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert command.run_flow(lambda: flow_sent(signal.SIGHUP)) == 0
