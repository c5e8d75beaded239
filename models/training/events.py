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


@dataclass(frozen=True)
class Measuring:
    """A part of a measurement between the epochs, or after the last one, is done: ``done`` of at most ``most``."""

    what: str
    done: int
    most: int


Event = StepEnd | EpochEnd | Notice | Measuring
Listener = Callable[[Event], None]


def silent(_: Event) -> None:
    """The listener that does nothing."""
