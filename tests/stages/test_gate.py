"""The gate's conditions, for metrics of both directions and of both kinds of outcomes."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluation import Evaluation, Metric
from stages.images.params import BALANCED
from stages.images.params import METRIC as ACCURACY
from stages.params import RegistryParams
from stages.plumbing.settings import load
from stages.registry.gate import NOISE, Champion, Comparison, Evidence, comparison, decide
from tests.stages.conftest import ROOT

IMAGES = 200
ERROR = Metric("mean_squared_error", "window", higher_is_better=False, outcomes="numbers")
DEFAULTS = load(ROOT / "params.yaml").registry
repeatable = settings(derandomize=True, deadline=None, database=None)


def limits(**changes: Any) -> RegistryParams:
    return DEFAULTS.model_copy(update=changes)


def right(count: int, **costs: float) -> Evaluation:
    """An evaluation whose first ``count`` answers are right."""
    per_case = (np.arange(IMAGES) < count).astype(float)
    return Evaluation(count / IMAGES, per_case, "same", {"latency_ms": 1.0, "size_bytes": 1000, **costs})


def errors(*per_case: float) -> Evaluation:
    """An evaluation of numbers whose mean is the score, with a measured latency and no size."""
    return Evaluation(float(np.mean(per_case)), np.array(per_case), "same", {"latency_ms": 1.0})


def evidence(
    challenger: Evaluation, champion: Evaluation | None, metric: Metric = ACCURACY, **changes: Any
) -> Evidence:
    other = None if champion is None else Champion(1, champion)
    facts: dict[str, Any] = {"largest_difference": 1e-6, "disagreements": 0, "identical": True, **changes}
    return Evidence(metric, "model.onnx", challenger, other, **facts)


@pytest.mark.parametrize(
    ("facts", "settings", "reasons"),
    [
        ({}, {}, []),
        ({"challenger": 150}, {}, ["test accuracy 0.7500 against 0.7500 of version 1"]),
        ({"challenger": 149}, {}, ["test accuracy 0.7450 against 0.7500 of version 1"]),
        ({"champion": None, "challenger": 1}, {}, []),
        ({"champion": None, "challenger": 0}, {}, []),
        ({}, {"min_gain": 0.05}, []),  # the gain is 0.05 exactly
        (
            {},
            {"min_gain": 0.051},
            ["test accuracy 0.8000 against 0.7500 of version 1, a gain below registry.min_gain (0.051)"],
        ),
        ({}, {"significance": 0.05}, []),
        (
            {"challenger": 155},
            {"significance": 0.05},
            ["the difference may be noise: p = 0.062, above registry.significance (0.05)"],
        ),
        ({"challenger": 155}, {"significance": 0.0625}, []),  # p is 2 / 2^5 exactly
        (
            {"identical": False},
            {},
            [
                "the registered file does not give the same answers as the exported file; delete the version and run"
                " `dvc repro` to register it again"
            ],
        ),
        ({"disagreements": 2}, {}, ["model.onnx and torch give different answers for 2 test images"]),
        ({"largest_difference": 1e-4}, {}, []),
        (
            {"largest_difference": 2e-4},
            {},
            [
                "the largest difference between the answers of model.onnx and torch is 2.0e-04, more than"
                " registry.max_difference (0.0001)"
            ],
        ),
        ({"largest_difference": math.nan}, {}, ["the largest difference .* is nan, more than"]),
        ({"largest_difference": 2e-4}, {"max_difference": 1e-3}, []),
        ({}, {"max_latency_ms": 0.9}, ["one image takes 1.00 ms, more than registry.max_latency_ms (0.9)"]),
        ({}, {"max_latency_ms": 1.0}, []),
        ({}, {"max_size_mb": 0.0009}, ["model.onnx has 0.00 MB, more than registry.max_size_mb (0.0009)"]),
        ({}, {"max_size_mb": 0.001}, []),
        (
            {"size_bytes": 2_345_678},
            {"max_size_mb": 2},
            ["model.onnx has 2.35 MB, more than registry.max_size_mb (2)"],
        ),
        (
            {"champion": None, "identical": False, "disagreements": 1},
            {"max_latency_ms": 0.5, "max_size_mb": 1e-6},
            ["the registered file", "model.onnx and torch", "one image takes", "model.onnx has"],
        ),
    ],
)
def test_each_condition_refuses_with_its_reason(
    facts: dict[str, Any], settings: dict[str, Any], reasons: list[str]
) -> None:
    known = {"challenger": 160, "champion": 150, **facts}
    costs = {"size_bytes": known.pop("size_bytes")} if "size_bytes" in known else {}
    champion, challenger = known.pop("champion"), right(known.pop("challenger"), **costs)
    judgement = decide(
        evidence(challenger, None if champion is None else right(champion), **known), limits(**settings)
    )
    assert judgement.accepted is (not reasons)
    assert len(judgement.refusals) == len(reasons), judgement.refusals
    for found, expected in zip(judgement.refusals, reasons, strict=True):
        pattern = re.escape(expected).replace(r"\.\*", ".*")
        assert re.match(f"{pattern}$" if expected.endswith(")") else pattern, found), found


def test_where_lower_is_better_the_lower_score_wins() -> None:
    lower, higher = errors(1.0, 2.0, 3.0), errors(2.0, 2.0, 2.5)
    assert decide(evidence(lower, higher, ERROR), limits()).accepted
    refused = decide(evidence(higher, lower, ERROR), limits())
    assert refused.refusals == ("test mean squared error 2.167 against 2 of version 1",)
    small = decide(evidence(lower, higher, ERROR), limits(min_gain=0.2))
    assert small.refusals == (
        "test mean squared error 2 against 2.167 of version 1, a gain below registry.min_gain (0.2)",
    )


@repeatable
@given(
    st.lists(
        st.tuples(st.integers(-20, 20), st.integers(-20, 20)).map(lambda pair: (pair[0] / 4, pair[1] / 4)),
        min_size=1,
        max_size=10,
    ),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_the_direction_of_the_metric_is_nothing_but_a_sign(
    pairs: list[tuple[float, float]], min_gain: float
) -> None:
    higher = Metric("score", "case", higher_is_better=True, outcomes="numbers")
    lower = Metric("score", "case", higher_is_better=False, outcomes="numbers")
    ours, theirs = np.array(pairs).T
    up = decide(evidence(errors(*ours), errors(*theirs), higher), limits(min_gain=min_gain))
    down = decide(evidence(errors(*-ours), errors(*-theirs), lower), limits(min_gain=min_gain))
    assert up.compared == down.compared
    assert up.accepted == down.accepted
    gain = float(np.mean(ours) - np.mean(theirs))
    if abs(gain) > 1e-9 and abs(gain - min_gain) > 1e-9:
        assert up.accepted is (gain > 0 and gain > min_gain)


def test_a_comparison_counts_the_cases_that_each_does_better() -> None:
    for metric, sign in ((ERROR, 1), (Metric("return", "episode", True, "numbers"), -1)):
        # Three are better, one is worse, four are equal.
        ours = errors(sign * 1, sign * 2.5, sign * 2, sign * 1, 0, 0, 7, 7)
        theirs = errors(sign * 2, sign * 3, sign * 2.5, sign * 0.5, 0, 0, 7, 7)
        found = comparison(evidence(ours, theirs, metric))
        assert found is not None
        assert (found.challenger_better, found.champion_better) == (3, 1)
        assert found.gain == pytest.approx(1.5 / 8)
    assert comparison(evidence(right(5), None)) is None


def test_the_gate_decides_by_the_metric_that_it_is_given() -> None:
    """195 images of one class and 5 of the other: three more of the few against four of the many."""
    labels = np.repeat([0, 1], [195, 5])

    def answered(many: int, few: int) -> Evaluation:
        hits = np.concatenate([np.arange(195) < many, np.arange(5) < few]).astype(float)
        return Evaluation(float(hits.mean()), hits, "same", {"latency_ms": 1.0}, {"labels": labels})

    challenger, champion = answered(191, 3), answered(195, 0)
    by_accuracy = decide(evidence(challenger, champion), limits())
    assert by_accuracy.refusals == ("test accuracy 0.9700 against 0.9750 of version 1",)
    by_recall = decide(evidence(challenger, champion, BALANCED), limits(min_gain=0.28))
    assert by_recall.accepted and by_recall.compared is not None
    assert by_recall.compared.gain == pytest.approx((191 / 195 + 3 / 5) / 2 - 1 / 2)
    assert (by_recall.compared.challenger_better, by_recall.compared.champion_better) == (3, 4)
    assert by_recall.compared.p_value == pytest.approx(sum_of_extremes(3 * [1 / 5], 4 * [1 / 195]))
    swapped = decide(evidence(champion, challenger, BALANCED), limits())
    assert swapped.refusals == ("test balanced accuracy 0.5000 against 0.7897 of version 1",)


def sum_of_extremes(large: list[float], small: list[float]) -> float:
    """The share of all signs for which the sum is as far from 0 as with large gains and small losses."""
    sizes = [*large, *small]
    seen = sum(large) - sum(small)
    signs = list(itertools.product((1, -1), repeat=len(sizes)))
    sums = [abs(sum(sign * size for sign, size in zip(row, sizes, strict=True))) for row in signs]
    return sum(value >= seen - 1e-12 for value in sums) / len(signs)


@pytest.mark.parametrize(("p_value", "exceeds"), [(NOISE, False), (math.nextafter(NOISE, 0), True)])
def test_noise_begins_at_one_in_twenty(p_value: float, exceeds: bool) -> None:
    assert NOISE == 1 / 20
    assert Comparison(0.1, 2, 1, p_value).exceeds_noise is exceeds


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("champion", [None, errors(1.0, 2.0)])
def test_a_score_that_is_no_number_never_becomes_champion(score: float, champion: Evaluation | None) -> None:
    challenger = Evaluation(score, np.array([score, 1.0]), "same")
    judgement = decide(evidence(challenger, champion, ERROR), limits(significance=0.05))
    assert judgement.refusals == (f"its test mean squared error is {score}, not a number",)
    assert judgement.compared is None


def test_a_budget_for_what_was_not_measured_refuses() -> None:
    judgement = decide(
        evidence(Evaluation(0.5, np.ones(2), ""), None), limits(max_latency_ms=5, max_size_mb=2)
    )
    assert judgement.refusals == (
        "registry.max_latency_ms is 5, but nothing measured the time per image",
        "registry.max_size_mb is 2, but nothing measured the size of model.onnx",
    )


def test_a_champion_that_cannot_be_compared_is_not_replaced() -> None:
    champion = Champion(4, None, "the champion, version 4, was tested on other images")
    facts = Evidence(ACCURACY, "model.onnx", right(200), champion, 0.0, 0, True)
    assert comparison(facts) is None
    assert decide(facts, limits(significance=0.05)).refusals == (champion.trouble,)
