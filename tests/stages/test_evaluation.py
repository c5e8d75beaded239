"""The metric and its paired tests, compared with closed forms and brute force, and the file of an evaluation."""

from __future__ import annotations

import itertools
import math
import re
import time
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stages.errors import UserError
from stages.evaluation import Evaluation, Metric, latency_ms

ACCURACY = Metric("accuracy", "image", True, "right or wrong")
CLASSES = Metric("accuracy", "image", True, "right or wrong", classes=True)
BALANCED = CLASSES.forms[-1]
ERROR = Metric("squared_error", "window", False, "numbers")
RETURN = Metric("return", "episode", True, "numbers")

repeatable = settings(derandomize=True, deadline=None, database=None)
cases = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def binomial_tail(only_ours: int, only_theirs: int) -> float:
    """Twice the smaller tail of a fair coin, computed with integers."""
    tosses, fewer = only_ours + only_theirs, min(only_ours, only_theirs)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / 2**tosses)


@repeatable
@given(cases)
def test_right_or_wrong_is_mcnemars_exact_test(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = np.array(pairs, dtype=np.float64).T
    only = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    assert ACCURACY.p_value(ours, theirs) == pytest.approx(binomial_tail(*only), rel=1e-9)


@pytest.mark.parametrize(("only_ours", "only_theirs"), [(0, 0), (5, 0), (10, 0), (30, 12), (700, 640)])
def test_mcnemar_of_many_images(only_ours: int, only_theirs: int) -> None:
    ours = np.zeros(3000)
    theirs = np.zeros(3000)
    ours[:only_ours], theirs[only_ours : only_ours + only_theirs] = 1, 1
    expected = binomial_tail(only_ours, only_theirs)
    assert ACCURACY.p_value(ours, theirs) == pytest.approx(expected, rel=1e-9)
    assert ACCURACY.p_value(theirs, ours) == ACCURACY.p_value(ours, theirs)


def all_signs(differences: NDArray[np.float64]) -> float:
    """The share of all sign assignments whose mean is at least as far from 0, by trying each one."""
    seen = abs(sum(differences))
    flips = [
        abs(sum(sign * size for sign, size in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(flip >= seen - 1e-12 for flip in flips) / len(flips)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("metric", [ERROR, RETURN])
def test_numbers_are_tested_with_all_signs_where_there_are_few(metric: Metric, count: int) -> None:
    draws = np.random.default_rng(count)
    ours, theirs = draws.normal(size=count), draws.normal(0.5, 1, size=count)
    assert metric.p_value(ours, theirs) == pytest.approx(all_signs(ours - theirs), abs=1e-12)


@pytest.mark.parametrize("count", [8, 100])
def test_more_cases_than_a_block_of_signs_holds_give_the_same_p_value(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(count)
    ours, theirs = draws.normal(0.2, 1, size=count), draws.normal(size=count)
    p_value = RETURN.p_value(ours, theirs)
    monkeypatch.setattr("stages.evaluation._SIGNS_AT_ONCE", count - 1)
    assert RETURN.p_value(ours, theirs) == p_value


def test_cases_without_a_difference_change_nothing() -> None:
    theirs = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    ours = theirs + np.array([0.5, 0.0, 1.5, -0.25, 0.0, 1.0])
    assert RETURN.p_value(ours, theirs) == pytest.approx(all_signs(ours - theirs), abs=1e-12) == 1 / 4


def test_numbers_of_many_cases_are_tested_by_a_seeded_sample() -> None:
    draws = np.random.default_rng(0)
    differences = draws.normal(0.15, 1, size=200)
    theirs = draws.normal(size=200)
    found = RETURN.p_value(theirs + differences, theirs)
    # With this many cases, the mean under random signs is almost normally distributed.
    z = abs(differences.sum()) / math.sqrt((differences**2).sum())
    expected = math.erfc(z / math.sqrt(2))
    assert 0.01 < expected < 0.2, "the test needs a p-value that is neither tiny nor large"
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected / 4999))
    assert RETURN.p_value(theirs + differences, theirs) == found
    assert RETURN.p_value(theirs, theirs + differences) == found
    assert RETURN.p_value(theirs, theirs) == 1
    # The smallest p-value that 4,999 draws can give: only the signs that were seen give such a difference.
    assert RETURN.p_value(theirs + 1, theirs) == pytest.approx(1 / 5000, rel=1e-12)


@repeatable
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_direction_of_a_metric(first: float, second: float) -> None:
    assert RETURN.better(first, second) == (first > second)
    assert ERROR.better(first, second) == (first < second)
    assert RETURN.gain(first, second) == -ERROR.gain(first, second) == first - second
    for metric in (RETURN, ERROR):
        assert not metric.better(math.nan, first) and not metric.better(first, math.nan)


def test_scores_in_words() -> None:
    assert (ACCURACY.text(0.94444), ACCURACY.digits(0.94444)) == ("94.44%", "0.9444")
    assert ACCURACY.digits(0.5) == "0.5000"
    assert (ERROR.text(0.000123456), ERROR.digits(12345.6)) == ("0.0001235", "1.235e+04")
    assert (ACCURACY.words, ERROR.words) == ("accuracy", "squared error")
    assert "McNemar" in ACCURACY.test  # as the model card and the report name it
    assert "permutation" in ERROR.test and ERROR.test == RETURN.test


def classified(labels: list[int], right: list[int]) -> Evaluation:
    """An evaluation of cases that have classes."""
    hits = np.array(right, dtype=np.float64)
    return Evaluation(float(hits.mean()), hits, "", {}, {"labels": np.array(labels)})


def test_balanced_accuracy_by_hand() -> None:
    # Class 0: three of four; class 1: none of one; class 2 has no case; class 3: one of two.
    answered = classified([0, 0, 0, 0, 1, 3, 3], [1, 1, 0, 1, 0, 1, 0])
    found = BALANCED.of(answered)
    assert found.score == BALANCED.score(answered) == (3 / 4 + 0 + 1 / 2) / 3
    # Weights 7 / (3 * 4), 7 / (3 * 1) and 7 / (3 * 2).
    np.testing.assert_allclose(found.per_case, [7 / 12, 7 / 12, 0, 7 / 12, 0, 7 / 6, 0])
    assert (BALANCED.name, BALANCED.words, BALANCED.test_name) == (
        "balanced_accuracy",
        "balanced accuracy",
        "test_balanced_accuracy",
    )
    assert BALANCED.text(found.score) == "41.67%"


def test_only_cases_with_classes_have_a_balanced_form() -> None:
    assert CLASSES.forms == BALANCED.forms == (CLASSES, BALANCED)
    assert (BALANCED.own, CLASSES.own, BALANCED.balanced) == (CLASSES, CLASSES, BALANCED)
    assert ERROR.forms == (ERROR,) and ERROR.balanced is None and ERROR.own is ERROR
    alone = classified([0, 1], [1, 0])
    assert CLASSES.of(alone) is alone


@repeatable
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=60))
def test_balanced_accuracy_is_the_mean_recall_and_the_mean_of_its_cases(
    pairs: list[tuple[int, bool]],
) -> None:
    from sklearn.metrics import recall_score

    labels, right = zip(*pairs, strict=True)
    found = BALANCED.of(classified([*labels], [*right]))
    answers = [label if hit else 99 for label, hit in pairs]
    recalls = recall_score(labels, answers, labels=sorted(set(labels)), average="macro")
    assert found.score == pytest.approx(recalls, abs=1e-12)
    assert found.per_case.mean() == pytest.approx(recalls, abs=1e-12)


def test_equal_balanced_accuracies_are_equal_to_the_last_digit() -> None:
    def recognized(*counts: int) -> Evaluation:
        """So many of the ten cases of each class."""
        return classified(
            np.repeat(range(3), 10).tolist(), [int(n < count) for count in counts for n in range(10)]
        )

    assert 0.1 + 0.2 + 0.3 != 0.0 + 0.3 + 0.3, "the test needs sums that differ by rounding"
    assert BALANCED.score(recognized(1, 2, 3)) == BALANCED.score(recognized(0, 3, 3))


def test_balanced_accuracies_are_compared_by_all_signs_of_the_weighted_differences() -> None:
    labels = [0] * 3 + [1] * 90
    ours, theirs = [1, 1, 0] + [1] * 85 + [0] * 5, [0, 0, 0] + [1] * 89 + [0]
    found = [BALANCED.of(classified(labels, right)) for right in (ours, theirs)]
    # Two cases of weight 93 / 6 for us, four of weight 93 / 180 against us: 2 ** 6 assignments of signs.
    expected = all_signs(np.array([93 / 6] * 2 + [-93 / 180] * 4))
    assert BALANCED.p_value(found[0].per_case, found[1].per_case) == pytest.approx(expected, abs=1e-12)
    accuracy = CLASSES.p_value(np.array(ours, float), np.array(theirs, float))
    assert accuracy == pytest.approx(binomial_tail(2, 4))
    assert (BALANCED.test, CLASSES.test) == (ERROR.test, ACCURACY.test)


def evaluation() -> Evaluation:
    return Evaluation(
        0.5,
        np.array([1.0, 0.0]),
        "a" * 64,
        {"latency_ms": 1.25, "size_bytes": 100},
        {"predicted": np.array([3, 1]), "confidence": np.array([0.5, 0.25], np.float32)},
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path, saved = tmp_path / "evaluation.safetensors", evaluation()
    saved.save(path)
    loaded = Evaluation.load(path)
    assert (loaded.score, loaded.cases_sha256, loaded.costs) == (0.5, "a" * 64, saved.costs)
    np.testing.assert_array_equal(loaded.per_case, saved.per_case)
    assert loaded.details.keys() == saved.details.keys()
    for name, array in saved.details.items():
        np.testing.assert_array_equal(loaded.details[name], array)
        assert loaded.details[name].dtype == array.dtype
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first


def test_arrays_of_any_layout_and_kind_are_kept(tmp_path: Path) -> None:
    right, table = np.array([True, False, False, True]), np.arange(6).reshape(2, 3)
    costs = MappingProxyType({"size_bytes": 100.0})
    Evaluation(0.5, right[::3], "", costs, {"turned": table.T}).save(tmp_path / "right")
    loaded = Evaluation.load(tmp_path / "right")
    np.testing.assert_array_equal(loaded.per_case, [1.0, 1.0])
    assert loaded.per_case.dtype == np.float64
    np.testing.assert_array_equal(loaded.details["turned"], [[0, 3], [1, 4], [2, 5]])
    assert loaded.costs == costs
    Evaluation(0.5, np.arange(6.0)[::2], "").save(tmp_path / "numbers")
    np.testing.assert_array_equal(Evaluation.load(tmp_path / "numbers").per_case, [0.0, 2.0, 4.0])


def test_a_score_that_is_no_number_is_kept(tmp_path: Path) -> None:
    Evaluation(math.nan, np.array([math.nan]), "").save(tmp_path / "nan")
    assert math.isnan(Evaluation.load(tmp_path / "nan").score)


BAD_HEADERS = {
    "no JSON": "{",
    "a field too few": '{"score": 0.5, "costs": {}}',
    "a field too many": '{"score": 0.5, "cases_sha256": "", "costs": {}, "more": 1}',
    "text for a number": '{"score": "0.5", "cases_sha256": "", "costs": {}}',
}


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text", "folder", "foreign", *BAD_HEADERS])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "evaluation.safetensors"
    evaluation().save(path)
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-3])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not an evaluation")
        case "folder":
            path.unlink()
            path.mkdir()
        case "foreign":
            save_file({"per_case": np.zeros(1)}, path)
        case _:
            save_file({"per_case": np.zeros(1)}, path, {"evaluation": BAD_HEADERS[damage]})
    with pytest.raises(UserError, match="run `dvc repro") as error:
        Evaluation.load(path)
    says = (
        "missing; run `dvc repro export`$"
        if damage == "missing"
        else r"damaged \(.+\); run `dvc repro -f export`$"
    )
    assert re.match(f"{re.escape(str(path))} is {says}", str(error.value))
    if damage == "a field too many":
        assert "more Extra inputs are not permitted" in str(error.value)
    assert "\n" not in str(error.value)


def test_latency_is_the_median_and_the_first_call_does_not_count() -> None:
    calls = iter([0.2, 0.05, *[0.005] * 100])
    count = 0

    def call() -> None:
        nonlocal count
        count += 1
        time.sleep(next(calls))

    assert 5 <= latency_ms(call) < 45  # neither the first, 200 ms, nor the second, 50 ms, moves the median
    assert count == 51


@pytest.mark.parametrize(("seconds", "calls"), [(0.01, 50), (0.8, 4), (10.0, 1)])
def test_slow_files_are_measured_by_as_many_calls_as_start_within_3_seconds(
    seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []
    clock = SimpleNamespace(now=100.0)

    def call() -> None:
        starts.append(clock.now)
        clock.now += seconds

    monkeypatch.setattr("stages.evaluation.time", SimpleNamespace(perf_counter=lambda: clock.now))
    assert latency_ms(call) == pytest.approx(1000 * seconds)
    assert len(starts) == 1 + calls  # the first does not count
