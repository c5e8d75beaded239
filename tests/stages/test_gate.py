"""The gate's conditions and the numbers they rest on, against other implementations."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import multiclass_calibration_error

from stages.images.scores import Scores, calibration, confusion
from stages.params import RegistryParams
from stages.plumbing.settings import load
from stages.registry.gate import Champion, Evidence, comparison, decide, mcnemar
from tests.stages.conftest import ROOT

IMAGES = 200


def limits(**changes: Any) -> RegistryParams:
    return load(ROOT / "params.yaml").registry.model_copy(update=changes)


def scores(right: NDArray[np.bool_] | int, *, latency_ms: float = 1.0, size_bytes: int = 1000) -> Scores:
    """Answers of which these are right, or the first so many."""
    hits = np.arange(IMAGES) < right if isinstance(right, int) else right
    labels = np.arange(IMAGES) % 3
    probabilities = np.eye(3, dtype=np.float32)[np.where(hits, labels, (labels + 1) % 3)]
    return Scores(probabilities, labels, size_bytes, latency_ms)


def evidence(challenger: Scores, champion: Scores | None, **changes: Any) -> Evidence:
    other = None if champion is None else Champion(1, champion)
    facts: dict[str, Any] = {"largest_difference": 1e-6, "disagreements": 0, "identical": True, **changes}
    return Evidence(challenger, other, **facts)


@pytest.mark.parametrize(
    ("facts", "settings", "reason"),
    [
        ({}, {}, None),
        ({"challenger": 150}, {}, "test accuracy 0.7500 against 0.7500 of version 1"),
        ({"challenger": 149}, {}, "test accuracy 0.7450 against 0.7500 of version 1"),
        ({"champion": None, "challenger": 1}, {}, None),
        ({}, {"min_gain": 0.05}, None),  # the gain is 0.05 exactly
        ({}, {"min_gain": 0.051}, "a gain below registry.min_gain (0.051)"),
        ({}, {"significance": 0.05}, None),
        (
            {"challenger": 155},
            {"significance": 0.05},
            "may be noise: p = 0.062, above registry.significance (0.05)",
        ),
        ({"identical": False}, {}, "the registered file, loaded again, does not answer as the exported one"),
        ({"disagreements": 2}, {}, "see 2 test images in different classes"),
        ({"largest_difference": 2e-4}, {}, "differs from torch's by 2.0e-04, more than registry.max_diff"),
        ({"largest_difference": 2e-4}, {"max_difference": 1e-3}, None),
        ({}, {"max_latency_ms": 0.9}, "an image takes 1.00 ms, more than registry.max_latency_ms (0.9)"),
        ({}, {"max_latency_ms": 1.0}, None),
        ({}, {"max_size_mb": 0.0009}, "model.onnx has 0.00 MB, more than registry.max_size_mb (0.0009)"),
        ({}, {"max_size_mb": 0.001}, None),
        (
            {"champion": None, "identical": False},
            {"max_latency_ms": 0.5},
            "does not answer .*; an image takes",
        ),
    ],
)
def test_each_condition_refuses_with_its_reason(
    facts: dict[str, Any], settings: dict[str, Any], reason: str | None
) -> None:
    given = {"challenger": 160, "champion": 150, **facts}
    champion = given.pop("champion")
    challenger = scores(given.pop("challenger"))
    judgement = decide(
        evidence(challenger, None if champion is None else scores(champion), **given), limits(**settings)
    )
    assert judgement.accepted is (reason is None)
    if reason:
        text = "; ".join(judgement.refusals)
        assert re.search(reason.replace("(", r"\(").replace(")", r"\)"), text), text
    else:
        assert judgement.refusals == ()


def test_a_champion_that_cannot_be_compared_is_not_replaced() -> None:
    champion = Champion(4, None, "the champion, version 4, was tested on other images")
    facts = Evidence(scores(200), champion, 0.0, 0, True)
    assert comparison(facts) is None
    assert decide(facts, limits()).refusals == (champion.trouble,)


def test_mcnemars_test_is_the_binomial_one() -> None:
    draws = np.random.default_rng(0)
    for share in (0.5, 0.7, 0.9, 1.0):
        for images in (1, 20, 400, 3000):
            first, second = draws.random(images) < share, draws.random(images) < 0.8
            only = int((first & ~second).sum()), int((second & ~first).sum())
            expected = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
            assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
            assert mcnemar(second, first) == mcnemar(first, second)


def test_calibration_is_that_of_torchmetrics() -> None:
    draws = np.random.default_rng(1)
    logits = draws.normal(size=(500, 4)) * 2
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    labels = draws.integers(0, 4, 500)
    found = calibration(Scores(probabilities, labels, 0, 0))
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=4, n_bins=15, norm="l1"
    )
    assert found.error == pytest.approx(float(expected), abs=1e-6)
    assert sum(count for _, _, count in found.bins) == 500


def test_certainty_that_is_always_right_is_calibrated() -> None:
    assert calibration(scores(IMAGES)).error == 0
    assert calibration(scores(0)).error == 1


def test_confusion_counts_actual_by_predicted() -> None:
    found = scores(120)
    expected = confusion_matrix(found.labels, found.probabilities.argmax(axis=1), labels=range(3))
    np.testing.assert_array_equal(confusion(found), expected)
