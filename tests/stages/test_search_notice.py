"""A search that has decided next to nothing says so, with the number and a remedy that is not taken yet."""

from __future__ import annotations

import pytest

from stages.plumbing.settings import load
from stages.search import UNDECIDED, notice
from stages.search_params import SupernetSearchParams
from tests.stages.processes import ROOT


def settings(**changes: str) -> SupernetSearchParams:
    search = load(ROOT / "params.yaml").search
    assert isinstance(search, SupernetSearchParams)
    return search.model_copy(update=changes)


@pytest.mark.parametrize("indecision", [0.0, 0.5, UNDECIDED - 1e-6])
def test_a_search_that_has_decided_says_nothing(indecision: float) -> None:
    assert notice(indecision, 0.7, settings()) == {}


@pytest.mark.parametrize("penalty", ["none", "beta"])
def test_the_notice_has_the_number_and_the_remedy(penalty: str) -> None:
    words = notice(0.9937, 0.1623, settings(penalty=penalty))["notice"]
    assert "99.4% of the entropy of a uniform mix" in words
    assert "weighs 0.162 on average" in words
    assert "set search.penalty to discretization" in words


def test_a_penalty_that_is_set_already_is_not_the_remedy() -> None:
    words = notice(UNDECIDED, 0.2, settings(penalty="entropy"))["notice"]
    assert "raise search.penalty_weight, or" in words
    assert "set search.penalty" not in words
