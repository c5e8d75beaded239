"""What the training of a found network comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.training.events import Row


@dataclass(frozen=True)
class Trained:
    """``weights``, without those that only the training needs, are those after ``best_epoch``, counted from 1."""

    history: Sequence[Row]
    weights: dict[str, Tensor]
    best_epoch: int
