"""Shows the progress of a long stage: a bar on a terminal, otherwise one line per epoch, both with the time left.

Programs read the same information from progress.json (stages/plumbing/status.py).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from models.training.events import EpochEnd, Event, Listener, Measuring, Notice, State, StepEnd
from stages.evaluation import Metric
from stages.plumbing.checkpoint import Checkpoint
from stages.plumbing.runtime import Watch
from stages.plumbing.status import ProgressFile
from stages.plumbing.tracking import StageRun

QUIET = 20.0  # seconds without output after which a measurement prints its progress


@contextlib.contextmanager
def reporting(
    stage: str,
    checkpoint: Checkpoint,
    tracked: StageRun,
    resume: State | None,
    metric: Metric,
    label: str | None = None,
) -> Iterator[Listener]:
    """The event handler of a long stage: after each epoch it saves a checkpoint, logs metrics and prints a line.

    Lines begin with ``label``, or else with the name of the stage.
    """
    label = label or stage
    checkpoint.note(run_id=tracked.id)
    if resume is not None:
        print(f"{label}: resumes after epoch {len(resume['history'])}", flush=True)
        tracked.rows_missing(resume["history"], "train_loss")
    with EpochProgress(stage, ("train_loss", f"valid_{metric.name}"), label) as progress:
        if resume is not None:
            progress.file.write(saved=len(resume["history"]))

        def on_event(event: Event) -> None:
            match event:
                case StepEnd():
                    progress.step(event)
                case EpochEnd():
                    checkpoint.save(event.state())
                    tracked.row(event.row)
                    progress.epoch(event, saved=event.epoch)
                case Notice():
                    progress.say(f"{label}: {event.message}")
                case Measuring():
                    progress.measuring(event)

        yield on_event


class EpochProgress:
    """Shows the progress of a training, and ends it when the pipeline that started the stage has ended."""

    def __init__(self, stage: str, columns: Sequence[str], label: str | None = None):
        self.label, self.columns = label or stage, columns
        self.watch, self.file = Watch(), ProgressFile(stage)
        self.bar: Progress | None = None
        if sys.stdout.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                console=Console(), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task(self.label, total=None)
        self.started: float | None = None
        self.said = time.monotonic()
        self.first_step = 0

    def __enter__(self) -> EpochProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, event: StepEnd) -> None:
        """Called after every batch."""
        self.watch()
        done = (event.epoch - 1) * event.steps + event.step
        if self.started is None:
            self.started, self.first_step = time.monotonic(), done
        self.done, self.total = done, event.epochs * event.steps
        if self.bar:
            text = f"{self.label} epoch {event.epoch}/{event.epochs}"
            self.bar.update(self.task, description=text, completed=done, total=self.total)
        self.steps = event.steps
        if self.file.due():
            self.file.write(
                epoch=event.epoch, epochs=event.epochs, step=event.step, steps=event.steps,
                seconds_left=self._seconds_left(),
            )  # fmt: skip

    def epoch(self, event: EpochEnd, saved: int = 0) -> None:
        """Called after every epoch. ``saved``: the epochs that the checkpoint now holds."""
        values = "  ".join(f"{name} {event.row[name]:.4g}" for name in self.columns)
        left = self._seconds_left()
        line = f"{self.label} epoch {event.epoch}/{event.epochs}  {values}  {_clock(left)} left"
        # Before the line, so that whoever reads it and interrupts the stage is told that this epoch is saved.
        self.file.write(
            epoch=event.epoch, epochs=event.epochs, step=self.steps, steps=self.steps, seconds_left=left,
            saved=saved, values=dict(event.row), line=line,
        )  # fmt: skip
        self.say(line)

    def measuring(self, event: Measuring) -> None:
        """Called after every part of a measurement. Without a bar, prints a line if the last one was long ago."""
        self.watch()
        text = f"{self.label}: {event.what} {event.done} of at most {event.most}"
        if self.bar:
            self.bar.update(self.task, description=text, completed=event.done, total=event.most)
        elif time.monotonic() - self.said >= QUIET:
            self.say(text)
        if self.file.due():
            self.file.write(line=text)

    def say(self, line: str) -> None:
        """Prints a line that stays on the terminal."""
        self.said = time.monotonic()
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _seconds_left(self) -> float | None:
        steps = self.done - self.first_step
        if self.started is None or steps == 0:
            return None
        return (time.monotonic() - self.started) / steps * (self.total - self.done)


def _clock(seconds: float | None) -> str:
    """Seconds as 1:02:03 or 2:03; a question mark when they are unknown."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
