"""Texts and drawings about an image classifier, for the model card and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.contracts import Words
from stages.images.data import read_card

if TYPE_CHECKING:
    from stages.evaluation import Evaluation
    from stages.images.params import Params
    from stages.registry.card import TaskCard


def words() -> Words:
    return Words()


def data_words() -> str:
    card = read_card()
    height, width, _ = card.image_shape
    counts = card.counts
    return (
        f"{card.name}, {counts['train']:,} training, {counts['val']:,} validation and {counts['test']:,} test images of"
        f" {height} × {width} pixels in {len(card.classes)} classes."
    )


def test_panel(params: Params, evaluation: Evaluation) -> Any:
    from stages.images.views.page import test_section  # only the report needs it

    return test_section(evaluation, params.report.examples)


def card(evaluation: Evaluation, params: Params) -> TaskCard:
    from stages.images.views.model_card import task_card  # only register needs it

    return task_card(evaluation, params)
