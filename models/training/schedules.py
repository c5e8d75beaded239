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


def warmed_up(rate: float, epoch: int, epochs: int, warmup: int) -> float:
    """``rate`` after a rise in equal parts over ``warmup`` epochs; then it falls to 0 along half a cosine.

    In epoch e < warmup it is (e + 1) / (warmup + 1) of ``rate``. Source: the gradual warm-up of arXiv
    1706.02677, section 2.2, which differs in that its rate rises with every step.
    """
    if epoch < warmup:
        return rate * (epoch + 1) / (warmup + 1)
    return cosine(rate, 0.0, epoch - warmup, epochs - warmup)
