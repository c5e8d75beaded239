"""The one loop that drives every training: epochs of steps. Between steps a training can be interrupted.

The loop knows nothing of data, optimizers, losses, architectures or scores. A ``Program`` brings these along:
a search, the training of a found network, or any other training that goes epoch by epoch. What all programs
share is written here only: history, progress, checkpoints, divergence, interruption, and the end on several
devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from models.errors import Diverged
from models.training.distributed import alone
from models.training.events import EpochEnd, Listener, Row, State, StepEnd, silent

Result_co = TypeVar("Result_co", covariant=True)


class Program(Protocol[Result_co]):
    """One training, as the loop sees it."""

    @property
    def epochs(self) -> int:
        """How many epochs the training takes at most."""
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

    while len(history) < program.epochs and not program.stopped(history):
        epoch = len(history)
        steps = program.start_epoch(epoch)
        for step in range(steps):
            program.step()
            on_event(StepEnd(epoch + 1, program.epochs, step + 1, steps))
        row = {"epoch": epoch + 1, **program.end_epoch(history, on_event)}
        _check_finite(row, program.remedy)
        history.append(row)
        on_event(EpochEnd(epoch + 1, program.epochs, row, state))
    with alone():
        return program.result(history, on_event)


def _check_finite(row: Row, remedy: str) -> None:
    loss = row["train_loss"]
    if loss is None or not math.isfinite(loss):
        raise Diverged(f"the training loss became {loss} in epoch {row['epoch']}; {remedy}")
