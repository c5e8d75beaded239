"""Shows how far a stage without epochs is: a bar on a terminal, otherwise a line now and then, both with the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from stages.plumbing.runtime import Watch
from stages.plumbing.status import ProgressFile

QUIET = 20.0  # seconds between two lines


@contextlib.contextmanager
def counting(stage: str, resumed: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function to call with a title, how much is done, and how much there is in all. It must be called often.

    What has the title ``resumed`` need not be done again after an interruption. The function ends the stage when
    the pipeline that started it has ended.
    """
    watch, file = Watch(), ProgressFile(stage)
    bar = _Bar(stage) if sys.stdout.isatty() else None
    said = started = looked = time.monotonic()
    part, first = "", 0

    def count(title: str, done: int, total: int) -> None:
        nonlocal said, started, looked, part, first
        now = time.monotonic()
        if title != part:
            part, first, started = title, done, now
        if now - looked < 0.1 and done < total:
            return
        looked = now
        watch()
        left = (now - started) / (done - first) * (total - done) if done > first else None
        if bar:
            bar.show(title, done, total)
        elif now - said >= QUIET:
            said = now
            print(f"{stage}: {done} of {total} {title}" + _in_words(left), flush=True)
        if file.due():
            remaining = f"the {title} that remain" if title == resumed and done else ""
            file.write(
                epoch=1, epochs=1, step=done, steps=total, seconds_left=left, remaining=remaining,
                line=f"{stage}: {done} of {total} {title}",
            )  # fmt: skip

    try:
        yield count
    finally:
        if bar:
            bar.stop()


def _in_words(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    return f", {minutes}:{seconds:02} left"


class _Bar:
    """The bar of one stage."""

    def __init__(self, stage: str):
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.stage = stage
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        self.task = self.bar.add_task(stage, total=None)
        self.bar.start()

    def show(self, title: str, done: int, total: int) -> None:
        self.bar.update(self.task, description=f"{self.stage}: {title}", completed=done, total=total)

    def stop(self) -> None:
        self.bar.stop()
