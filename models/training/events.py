"""What the training loop tells its listener, which may raise to interrupt it between two batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]  # content of a checkpoint: nested dicts and lists of tensors, numbers, strings, None
Row = Mapping[str, int | float | None]  # one epoch of the history


@dataclass(frozen=True)
class StepEnd:
    """A batch is done: ``step`` of ``steps`` in ``epoch`` of ``epochs``, both counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is done. ``state()`` is everything that a bit-identical continuation needs."""

    epoch: int
    epochs: int
    row: Row
    state: Callable[[], State]


@dataclass(frozen=True)
class Notice:
    """Something about the settings that the user should know. It is told once."""

    message: str


@dataclass(frozen=True)
class Measuring:
    """A part of a measurement between or after the epochs is done: ``done`` of at most ``most``."""

    what: str
    done: int
    most: int


Event = StepEnd | EpochEnd | Notice | Measuring
Listener = Callable[[Event], None]


def silent(_: Event) -> None:
    """The listener that does nothing."""
