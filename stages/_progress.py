"""What a person sees of a long stage: a bar on a terminal, one line an epoch elsewhere, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from models.events import EpochEnd, StepEnd
from stages._runtime import Watch


class EpochProgress:
    """A listener of the training loops that shows them, and that ends them when the pipeline is gone.

    ``columns`` are the keys of the history that the epoch's line shows.
    """

    def __init__(self, stage: str, columns: Sequence[str]):
        self.stage, self.columns = stage, columns
        self.watch = Watch()
        self.bar: Progress | None = None
        if sys.stdout.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                console=Console(), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task(stage, total=None)
        self.started: float | None = None
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
            text = f"{self.stage} epoch {event.epoch}/{event.epochs}"
            self.bar.update(self.task, description=text, completed=done, total=self.total)

    def epoch(self, event: EpochEnd) -> None:
        """Called after every epoch."""
        values = "  ".join(f"{name} {event.row[name]:.4g}" for name in self.columns)
        line = f"{self.stage} epoch {event.epoch}/{event.epochs}  {values}  {self._left()} left"
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _left(self) -> str:
        steps = self.done - self.first_step
        if self.started is None or steps == 0:
            return "?"
        seconds = (time.monotonic() - self.started) / steps * (self.total - self.done)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
