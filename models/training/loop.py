"""The one loop that drives every training: epochs of steps. Between steps a training can be interrupted.

The loop knows nothing of data, optimizers, losses, architectures or scores. A ``Program`` brings these along:
a search, the training of a found network, or any other training that goes epoch by epoch. What all programs
share is written here only: history, progress, checkpoints, divergence, interruption, and the end on several
devices.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from models.errors import Diverged
from models.training.ahead import Ahead
from models.training.distributed import alone
from models.training.events import EpochEnd, Listener, Row, State, StepEnd, silent

# The column of the history with the share of the steps' time that was spent waiting for data. It is the only column
# that differs between two runs of the same training.
DATA_WAIT = "data_wait"

Result_co = TypeVar("Result_co", covariant=True)


class Program(Protocol[Result_co]):
    """One training, as the loop sees it."""

    @property
    def epochs(self) -> int:
        """How many epochs the training takes at most."""
        ...

    @property
    def inputs(self) -> Collection[Ahead]:
        """The streams that the steps take their batches from."""
        ...

    @property
    def remedy(self) -> str:
        """What to do when the training loss is no longer finite, such as "lower retrain.learning_rate"."""
        ...

    def start_epoch(self, epoch: int) -> int:
        """Prepares an epoch, counted from 0, and returns its number of steps.

        May change the structure that is trained.
        """
        ...

    def step(self) -> None:
        """Takes one step, usually on one batch."""
        ...

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        """Measures the epoch and returns its row, which needs the column ``train_loss``.

        ``history`` has the rows of the epochs before.
        """
        ...

    def stopped(self, history: Sequence[Row]) -> bool:
        """Whether the training ends before its last epoch."""
        ...

    def state(self) -> State:
        """Everything that a bit-identical continuation needs, including the structure.

        The history is not part of it, because the loop saves that.
        """
        ...

    def restore(self, state: State) -> None:
        """Rebuilds the structure first, then loads what ``state`` returned."""
        ...

    def result(self, history: Sequence[Row], on_event: Listener) -> Result_co:
        """The result of the training. With several processes, each computes all of it by itself."""
        ...


def run(
    program: Program[Result_co], *, on_event: Listener = silent, resume: State | None = None
) -> Result_co:
    """Runs a training to its end, from its start or from a saved state.

    ``on_event`` hears of every step and epoch, and may raise to interrupt the training between two steps.
    Raises Diverged when the training loss is no longer finite.
    """
    history: list[Row] = []
    if resume is not None:
        history = resume["history"]
        program.restore(resume["program"])

    def state() -> State:
        return {"history": history, "program": program.state()}

    with _closing(program.inputs):
        while len(history) < program.epochs and not program.stopped(history):
            epoch = len(history)
            steps = program.start_epoch(epoch)
            stopwatch = _Stopwatch(program.inputs)
            for step in range(steps):
                with stopwatch:
                    program.step()
                on_event(StepEnd(epoch + 1, program.epochs, step + 1, steps))
            row = {"epoch": epoch + 1, **program.end_epoch(history, on_event), DATA_WAIT: stopwatch.waiting()}
            _check_finite(row, program.remedy)
            history.append(row)
            on_event(EpochEnd(epoch + 1, program.epochs, row, state))
    with alone():
        return program.result(history, on_event)


@contextlib.contextmanager
def _closing(inputs: Collection[Ahead]) -> Iterator[None]:
    """Ends the threads of the inputs at the end of the block, however it ends."""
    with contextlib.ExitStack() as stack:
        for stream in inputs:
            stack.callback(stream.close)
        yield


class _Stopwatch:
    """Adds up the time of steps, and the part of it that they waited for their inputs."""

    def __init__(self, inputs: Collection[Ahead]):
        self.inputs, self.seconds = inputs, 0.0
        self.waited_before = self._waited()

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.start

    def waiting(self) -> float:
        """The share of the steps' time that they waited, from 0 to 1."""
        return (self._waited() - self.waited_before) / self.seconds

    def _waited(self) -> float:
        return sum(stream.waited for stream in self.inputs)


def _check_finite(row: Row, remedy: str) -> None:
    loss = row["train_loss"]
    if loss is None or not math.isfinite(loss):
        raise Diverged(f"the training loss became {loss} in epoch {row['epoch']}; {remedy}")
