"""What the report and the model card say about forecasters and language models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.contracts import Words
from stages.sequences.data import read_card
from stages.sequences.params import TEXT

if TYPE_CHECKING:
    from markupsafe import Markup

    from stages.evaluation import Evaluation
    from stages.registry.card import TaskCard
    from stages.sequences.params import Params


def words() -> Words:
    series = read_card().kind != TEXT
    return Words(
        parts="cell",
        reading=(
            f"This cell goes through the {'look-back row by row' if series else 'text piece by piece'}, and each time its output"
            " becomes its next state. A node with × multiplies its two sides, a node with + takes their mean. “State” is the"
            " output of the time step before; “input” and “start” are made of it and of what comes in."
        ),
        signs=(
            "All panels except the first two show signs of a search that does not decide: the mix keeps its entropy, the genotype"
            " never settles{eigenvalue}. A step of growth adds choices that are still open, so that the entropy rises."
        ),
        anew="The cell of the genotype was trained from scratch",
    )


def data_words() -> str:
    card = read_card()
    counts = card.counts
    if card.kind == TEXT:
        return (
            f"a text of {card.bounds[-1]:,} {card.unit} and {len(card.vocabulary):,} different ones; {counts['test']:,} test chunks"
            f" of {card.chunk} {card.unit}."
        )
    targets = _listed([*card.targets])
    helped = f", with the help of {_listed([*card.covariates])}" if card.covariates else ""
    several = f" in {len(card.series)} series" if card.series else ""
    return (
        f"{card.rows[-1][-1]:,} rows{several}, one {card.step.every()}; from {card.step.in_words(card.lookback)}, the network"
        f" forecasts {targets} for {card.step.in_words(card.horizon)}{helped}. {counts['train']:,} training, {counts['val']:,}"
        f" validation and {counts['test']:,} test windows."
    )


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} others"]
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1]


def test_panel(params: Params, evaluation: Evaluation) -> Markup:
    from stages.sequences.views.page import test_section  # only the report needs it

    return test_section(evaluation, params.report.examples)


def card(evaluation: Evaluation, params: Params) -> TaskCard:
    from stages.sequences.views.model_card import task_card  # only register needs it

    return task_card(evaluation, params)
