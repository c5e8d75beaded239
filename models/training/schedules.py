"""Learning rates, radii and temperatures as functions of the epoch: no state to save, no order of calls to get wrong."""

from __future__ import annotations

import math


def cosine(start: float, end: float, epoch: int, epochs: int) -> float:
    """Half a cosine from ``start`` at epoch 0 towards ``end`` at epoch ``epochs`` (arXiv 1608.03983)."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def linear(start: float, end: float, epoch: int, epochs: int) -> float:
    """A straight line from ``start`` in the first epoch to ``end`` in the last of ``epochs``."""
    return start + (end - start) * epoch / max(epochs - 1, 1)


def geometric(start: float, end: float, epoch: int, epochs: int) -> float:
    """From ``start`` in the first epoch to ``end`` in the last of ``epochs``, by the same factor in every epoch."""
    return start * (end / start) ** (epoch / max(epochs - 1, 1))
