"""Evaluates retrained weights on the test cases, in torch, beside the networks and the rule they are compared with.

Torch is imported inside functions, because code that only runs exported files imports this package too and should
start quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.evaluation import Evaluation
from stages.plumbing.files import write_rows
from stages.sequences.data import read_card
from stages.sequences.params import TEXT, Params
from stages.sequences.testing.comparing import compared, worse_than
from stages.sequences.testing.series import by_series_or_target, by_step


def evaluate_weights(params: Params, weights: Path) -> Evaluation:
    from stages.sequences.testing.with_torch import evaluated, load_networks

    return evaluated(load_networks(params.retrain, weights), read_card())


def class_scores(evaluation: Evaluation) -> Mapping[str, float | None] | None:
    card = read_card()
    return None if card.kind == TEXT else by_series_or_target(evaluation, card)


def notices(evaluation: Evaluation) -> Sequence[str]:
    line = worse_than(evaluation, read_card())
    return [line] if line else []


def write_results(folder: Path, evaluation: Evaluation) -> None:
    """``baselines.csv``, with one row per network, and for series ``horizon.csv``, with one per step and target."""
    card = read_card()
    write_rows(folder / "baselines.csv", [row.for_csv() for row in compared(evaluation, card)])
    if card.kind != TEXT:
        write_rows(folder / "horizon.csv", by_step(evaluation, card))
