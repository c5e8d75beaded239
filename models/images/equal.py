"""Networks of equal size: the widths of a network that come closest to a number of parameters.

A comparison of architectures holds the number of parameters fixed (Yang et al., arXiv 1912.12522). Depth stays; the
channels change. A step of the first cells' channels alone would be too coarse, 13% of the parameters from 16 channels to
17. So each stage's channels are rounded by themselves: 16, 32 and 66 lie between 16, 32, 64 and 17, 34, 68.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import nn

TOLERANCE = 0.05  # largest relative difference of parameters that counts as equal
_FINE = 0.02  # up to this relative difference, the widths keep their shares
_STEPS = 64  # between two whole numbers of channels

Widths = tuple[int, ...]


def parameters_of(build: Callable[[], nn.Module]) -> int:
    """The learnable parameters of a network, which is built without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def nearest_widths(
    count: Callable[[Widths], int], multiples: Sequence[float], target: int, least: int = 1
) -> Widths:
    """The widths near the multiples of one number for which ``count(widths)`` is closest to ``target``.

    ``count`` grows with every width. No width is below ``least``.
    """
    count = cache(count)

    def at(step: int) -> Widths:
        return tuple(max(least, int(step / _STEPS * multiple + 0.5)) for multiple in multiples)

    high = _STEPS
    while count(at(high)) < target:
        high *= 2
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(at(middle)) < target else (low, middle)

    def distance(widths: Widths) -> int:
        return abs(count(widths) - target)

    best = min(at(low), at(high), key=distance)
    if distance(best) > _FINE * target:
        around = itertools.product(*(range(max(least, width - 1), width + 2) for width in best))
        best = min((best, *around), key=distance)
    return best
