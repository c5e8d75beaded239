"""The schema of params.yaml for curves, and their metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stages import params as shared
from stages import search_params as searching
from stages.evaluation import Metric
from stages.section import Count, NotNegative, Positive

METRIC = Metric(name="squared_error", case="point", higher_is_better=False, outcomes="numbers")

PACKAGES: Sequence[str] = ()  # needs nothing besides requirements.lock


class DataParams(shared.DataParams, frozen=True):
    name: Literal["sine"]
    points: Count
    noise: NotNegative


class SearchParams(searching.SupernetSearchParams, frozen=True):
    space: Literal["curves"]


class RetrainParams(shared.BatchedRetrainParams, frozen=True):
    learning_rate: Positive


class Params(shared.Params, frozen=True):
    """All of params.yaml, for curves."""

    data: DataParams
    search: SearchParams
    retrain: RetrainParams


def metric(params: shared.Params) -> Metric:
    return METRIC
