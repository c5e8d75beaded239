"""What the training loops tell their listener; a listener may raise to interrupt them between two batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]  # nested dicts and lists of tensors, numbers, strings and None: a checkpoint's content
Row = Mapping[str, int | float | None]  # one epoch of the history


@dataclass(frozen=True)
class StepEnd:
    """A batch is done: ``step`` of ``steps`` in ``epoch`` (counted from 1) of ``epochs``."""

    epoch: int
    epochs: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is done. ``state()`` is everything needed to go on from here, bit for bit."""

    epoch: int
    epochs: int
    row: Row
    state: Callable[[], State]


@dataclass(frozen=True)
class Notice:
    """Something about the settings that the user should know, said once."""

    message: str


Event = StepEnd | EpochEnd | Notice
Listener = Callable[[Event], None]


def silent(_: Event) -> None:
    """The listener that does nothing."""
