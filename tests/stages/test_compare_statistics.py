"""The statistics of comparisons, against closed forms, brute force and simulated data with a known difference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from stages.compare.statistics import (
    affordable,
    chance_to_be_best,
    deviation,
    intervals,
    percentile,
)

CASES, SEEDS, CELLS = 400, 5, 6


def test_a_single_seed_gives_the_bootstrap_over_cases() -> None:
    values = np.random.default_rng(0).normal(size=CASES)
    found = intervals({"x": values[None, None]}, resamples=8000)["x"]
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=8000, rng=1).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_the_width_is_that_of_seeds_cases_and_cells_together() -> None:
    """Effects that add up have variances that add up: of a seed, of a case, and of a cell."""
    source = np.random.default_rng(1)
    cells, seeds, cases = (
        source.normal(size=n) * scale for n, scale in ((CELLS, 0.5), (SEEDS, 0.3), (CASES, 4.0))
    )
    values = cells[:, None, None] + seeds[:, None] + cases
    found = intervals({"x": values}, resamples=8000)["x"]
    variance = sum(effect.var() / len(effect) for effect in (cells, seeds, cases))
    expected = 2 * norm.ppf(0.975) * math.sqrt(variance)
    assert found.high - found.low == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(("lead", "decided"), [(0.03, True), (0.0, False)])
def test_a_known_difference_is_found_and_none_is_not_invented(lead: float, decided: bool) -> None:
    """Right or wrong answers of two networks that agree on most cases, with 5,000 cases and 4 seeds."""
    source = np.random.default_rng(2)
    hardness = source.uniform(size=5000)

    def answers(better: float) -> np.ndarray:
        wobble = source.normal(scale=0.05, size=(4, 5000))
        return (hardness + wobble < 0.9 + better).astype(float)

    found = intervals({"x": (answers(lead) - answers(0.0))[None]})["x"]
    assert (found.low > 0) == decided
    assert found.low < lead < found.high


def test_intervals_are_the_same_every_time_and_independent_of_other_differences() -> None:
    values = np.random.default_rng(3).normal(size=(2, 3, 50))
    alone = intervals({"x": values})["x"]
    assert intervals({"x": values, "y": -values})["x"] == alone
    assert intervals({}) == {}


def test_pairing_removes_what_networks_share() -> None:
    source = np.random.default_rng(4)
    shared, own = source.normal(size=(3, 500)) * 10, source.normal(size=(2, 3, 500)) * 0.1
    found = intervals({"paired": (own[0] - own[1])[None] + 0.05, "alone": (shared + own[0])[None]})
    assert found["paired"].high - found["paired"].low < 0.05 * (found["alone"].high - found["alone"].low)


@pytest.mark.parametrize("some", [1, 2, 3, 5])
def test_the_chance_to_be_best_is_that_of_all_draws(some: int) -> None:
    gains = [0.2, 0.9, 0.4, 0.9, 0.1]
    draws = list(itertools.combinations(range(len(gains)), some))
    best = [max(draw, key=lambda place: (gains[place], -place)) for draw in draws]
    expected = [best.count(place) / len(draws) for place in range(len(gains))]
    assert chance_to_be_best(gains, some) == pytest.approx(expected)


def test_affordable_trainings_are_at_least_one() -> None:
    assert [affordable(minutes, 2.0) for minutes in (0.1, 2.0, 5.9, 6.0)] == [1, 1, 2, 3]


def test_percentiles_count_equal_ones_half() -> None:
    assert percentile(3.0, [1.0, 2.0, 4.0, 5.0]) == 50
    assert percentile(3.0, [1.0, 3.0]) == 75
    assert (percentile(9.0, [1.0]), percentile(0.0, [1.0])) == (100, 0)


def test_one_value_has_no_deviation() -> None:
    assert deviation([0.5]) is None
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
