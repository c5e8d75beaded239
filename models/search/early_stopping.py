"""When a search should stop early, and which epoch's alpha to keep: pure functions of the history.

They work with any strategy. They have no state to save, because a resumed search has the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from models.errors import InvalidInput
from models.training.events import Row


class EarlyStopping(Protocol):
    """A rule that reads the rows of the epochs so far."""

    @property
    def needs_eigenvalue(self) -> bool:
        """Whether the rule reads the column ``hessian_eigenvalue``, which takes time in each epoch."""
        ...

    def __call__(self, history: Sequence[Row]) -> int | None:
        """None to go on; otherwise the epoch, counted from 1, whose alpha is the result."""
        ...


@dataclass(frozen=True)
class EigenvalueRise:
    """Stops when the dominant Hessian eigenvalue rises (RobustDARTS, arXiv 1909.09656, section 4.3).

    Let m(i) be the mean magnitude of the eigenvalue over the ``window`` epochs up to i. The search stops at
    epoch i if m(i) > threshold m(i - window), and returns to epoch i - window. The first ``minimum_epochs``
    epochs are left out of both means, because the eigenvalue moves with the weights alone while alpha is
    frozen.
    """

    window: int = 5
    threshold: float = 1.3
    minimum_epochs: int = 5
    needs_eigenvalue = True

    def __post_init__(self) -> None:
        if self.window < 1 or not self.threshold > 0:
            raise InvalidInput(
                f"early stopping has window {self.window} and threshold {self.threshold}; set both above 0"
            )

    def __call__(self, history: Sequence[Row]) -> int | None:
        values = [abs(_number(row, "hessian_eigenvalue")) for row in history[self.minimum_epochs :]]
        if len(values) < 2 * self.window:
            return None
        now, before = values[-self.window :], values[-2 * self.window : -self.window]
        return len(history) - self.window if sum(now) > self.threshold * sum(before) else None


@dataclass(frozen=True)
class SkipConnections:
    """Stops when a cell type has more than ``limit`` skip connections (DARTS+, arXiv 1909.06035).

    Returns to the last epoch within the limit (DARTS+ keeps the cell it stops at). If no epoch was within the
    limit, returns to the last of the epochs with the fewest. Never stops in the first ``minimum_epochs``
    epochs, in which alpha still has its initial values.
    """

    limit: int = 2
    group: str = "normal"
    minimum_epochs: int = 5
    needs_eigenvalue = False

    def __call__(self, history: Sequence[Row]) -> int | None:
        counts = [_number(row, f"skip_connects_{self.group}") for row in history]
        if len(history) <= self.minimum_epochs or counts[-1] <= self.limit:
            return None
        return min(range(len(counts)), key=lambda index: (max(counts[index], self.limit), -index)) + 1


def _number(row: Row, column: str) -> float:
    value = row.get(column)
    if value is None:
        raise InvalidInput(
            f"early stopping reads {column}, which this search does not have; it has {', '.join(row)}"
        )
    return value
