"""Texts about curves, for the model card and the report."""

from __future__ import annotations

from markupsafe import Markup
from stages.curves.data import read_card
from stages.curves.params import METRIC, Params

from stages.contracts import Words
from stages.evaluation import Evaluation
from stages.registry.card import TaskCard


def words() -> Words:
    return Words()


def data_words() -> str:
    return f"{read_card().counts['train']} training points."


def test_panel(params: Params, evaluation: Evaluation) -> Markup:
    return Markup(f"<p>Mean squared error {METRIC.text(evaluation.score)}.</p>")


def card(evaluation: Evaluation, params: Params) -> TaskCard:
    return TaskCard(
        headline=f"Fits a curve; squared error {METRIC.text(evaluation.score)}.",
        description="A line or a sine.",
        contract=["Input `x`: float32 (batch,). Output `y`: float32 (batch,)."],
        licence="none",
        results={},
        limits=["It knows two functions."],
        groups=["cell"],
    )
