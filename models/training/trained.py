"""The result of training a found network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.training.events import Row


@dataclass(frozen=True)
class Trained:
    """``weights`` are those after ``best_epoch``, counted from 1, without those that only training needs."""

    history: Sequence[Row]
    weights: dict[str, Tensor]
    best_epoch: int
