"""The statistics of a comparison: differences with their intervals, the best of several random cells, percentiles.

Axes: K networks of one side, S seeds, N test cases, B bootstrap samples.

Every network is trained with the same seeds and answers the same test cases, so differences are taken seed by seed and
case by case. Their interval is that of the pigeonhole bootstrap (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 2007): seeds and cases are drawn with replacement, independently of each other, and where the other side is
several random cells, so are these. The interval is somewhat wide for what seeds and cases share, and somewhat narrow
when there are few seeds: of three seeds, the spread is underestimated by a factor of about 0.8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_RESAMPLES, _SEED = 4000, 0
_AT_ONCE = 2**22  # drawn numbers per block: bounds the memory


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with a probability of 95%."""

    mean: float
    low: float
    high: float


def intervals(
    differences: Mapping[str, NDArray[np.float64]], resamples: int = _RESAMPLES
) -> dict[str, Interval]:
    """Name -> interval of the mean of differences (K, S, N). S and N are the same for all names.

    All names see the same draws of seeds and cases.
    """
    if not differences:
        return {}
    _, seeds, cases = next(iter(differences.values())).shape
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in differences}
    source, block = np.random.default_rng(_SEED), max(1, _AT_ONCE // cases)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        cases_BN, seeds_BS = _counts(source, size, cases), _counts(source, size, seeds)
        for name, values_KSN in differences.items():
            means_KSB = values_KSN @ cases_BN.T / cases
            means_KB = np.einsum("ksb,bs->kb", means_KSB, seeds_BS) / seeds
            networks_BK = _counts(source, size, len(values_KSN))
            found[name].append((means_KB * networks_BK.T).sum(axis=0) / len(values_KSN))
    tail = (1 - LEVEL) / 2
    made = {}
    for name, blocks in found.items():
        low, high = np.quantile(np.concatenate(blocks), [tail, 1 - tail])
        made[name] = Interval(float(differences[name].mean()), float(low), float(high))
    return made


def _counts(source: np.random.Generator, size: int, things: int) -> NDArray[np.float64]:
    """How often each of some things is drawn in as many draws with replacement, (size, things)."""
    drawn = source.integers(things, size=(size, things)) + things * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * things).reshape(size, things).astype(np.float64)


def chance_to_be_best(gains_K: Sequence[float], some: int) -> NDArray[np.float64]:
    """The probability (K,) of each network to be the best of ``some`` that are drawn without replacement.

    ``gains_K`` are validation scores of which more is better. Of equal ones the first counts as the best.
    """
    count = len(gains_K)
    order = sorted(range(count), key=lambda place: (-gains_K[place], place))
    chances = np.zeros(count)
    for better, place in enumerate(order):  # the others must come from those that are worse
        chances[place] = math.comb(count - 1 - better, some - 1) / math.comb(count, some)
    return chances


def affordable(search_minutes: float, training_minutes: float) -> int:
    """How many trainings the search's time would have paid for, at least 1."""
    return max(1, int(search_minutes // training_minutes))


def percentile(gain: float, others: Sequence[float]) -> float:
    """The percentage of ``others`` that are worse than ``gain``; equal ones count half."""
    worse = sum(other < gain for other in others) + 0.5 * sum(other == gain for other in others)
    return 100 * worse / len(others)


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
