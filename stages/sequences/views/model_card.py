"""The model card's sections about a forecaster or a language model: contract, results beside other networks, and limits."""

from __future__ import annotations

from collections.abc import Sequence

from stages.evaluation import Evaluation
from stages.genotypes import read_genotype
from stages.registry.card import TaskCard
from stages.registry.markdown import plain, table
from stages.sequences.data import SequenceCard, metric_of, read_card
from stages.sequences.params import TEXT, Params
from stages.sequences.testing.comparing import compared, worse_than
from stages.sequences.testing.series import by_series_or_target
from stages.sequences.views.page import comparison

_LICENCES = {
    "traffic": "CC BY 4.0 (UCI Machine Learning Repository, Metro Interstate Traffic Volume), from the package autots (MIT)"
}
_OWN = "not known; the owner of the file must state it"
_SERIES_LISTED = 20


def task_card(evaluation: Evaluation, params: Params) -> TaskCard:
    """The parts of the card that are about sequences."""
    card, metric = read_card(), metric_of(read_card())
    heads, rows = comparison(compared(evaluation, card))
    notice = worse_than(evaluation, card)
    results = {"Beside other networks": table(heads, [[plain(cell) for cell in row] for row in rows])}
    if parts := by_series_or_target(evaluation, card) if card.kind != TEXT else None:
        known = [(name, value) for name, value in parts.items() if value is not None]
        worst = sorted(known, key=lambda part: -part[1])[:_SERIES_LISTED]
        title = "MASE by series" if len(card.series) > 1 else "MASE by target"
        title += f" (the worst {_SERIES_LISTED} of {len(known)})" if len(known) > len(worst) else ""
        results[title] = table(("", "MASE"), [(plain(name), metric.text(value)) for name, value in worst])
    return TaskCard(
        headline=_headline(evaluation, card),
        description=_description(params),
        contract=_contract(card),
        licence=_LICENCES.get(params.data.name, _OWN),
        results=results,
        limits=_limits(card),
        groups=list(read_genotype("sequences").groups),
        notices=[notice] if notice else [],
    )


def _headline(evaluation: Evaluation, card: SequenceCard) -> str:
    metric = metric_of(card)
    score = metric.text(evaluation.score)
    if card.kind == TEXT:
        return f"Predicts a text, piece by piece, in {score} bits per character on {len(evaluation.per_case)} test chunks."
    targets = ", ".join(map(plain, card.targets[:6])) + (", ..." if len(card.targets) > 6 else "")
    return (
        f"Forecasts {targets} for {card.step.in_words(card.horizon)} from {card.step.in_words(card.lookback)}; test MASE {score}"
        f" on {len(evaluation.per_case)} windows (below 1: better than repeating the values of"
        f" {card.step.in_words(card.season)} before)."
    )


def _description(params: Params) -> str:
    search, retrain = params.search, params.retrain
    grown = f", growing ({search.growth.mode})" if search.growth.mode != "none" else ""
    return (
        f"A recurrent network whose cell was found by {search.strategy} in the space {search.space}{grown} ({search.epochs}"
        f" epochs, seed {search.seed}) and that was then trained from scratch ({retrain.epochs} epochs, {retrain.hidden} numbers"
        f" in its state, seed {retrain.seed})."
    )


def _contract(card: SequenceCard) -> list[str]:
    if card.kind == TEXT:
        return [
            "Inputs `tokens`: int64 (batch, time), and `state`: float32 (batch, hidden), zeros at the beginning of a text. Outputs"
            " `logits`: float32 (batch, time, vocabulary) of what follows each token, and `new_state`.",
            f"Tokens are {card.unit}; the file's metadata have the vocabulary of {len(card.vocabulary)} entries, the first of"
            " which stands for everything unknown.",
        ]
    return [
        f"Input `series`: float32 (batch, {card.lookback}, {len(card.variables)}), in the user's units, the oldest row first, one"
        f" row {card.step.every()}. Output `forecast`: float32 (batch, {card.horizon}, {len(card.targets)}), in the user's units."
        " The scaling is inside.",
        f"Columns of the input, in this order: {_named(card.variables)}.",
        f"Columns of the output: {_named(card.targets)}.",
    ]


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(plain, names[:50]))
    return shown + (f" and {len(names) - 50} more" if len(names) > 50 else "")


def _limits(card: SequenceCard) -> list[str]:
    if card.kind == TEXT:
        lines = ["The network knows texts like the one that it was trained on. It answers no questions."]
        if card.unit == "words":
            lines.append(
                "Unknown words count as one entry, whose spelling costs nothing, so bits per character of different vocabularies"
                " cannot be compared."
            )
        return lines
    return [
        "A forecast is one number per step and target, without an interval.",
        "What happens in the future must resemble the training rows: nothing was tested on a change of regime.",
        "Covariates are known up to the moment of the forecast, not beyond.",
        "The look-back must have no gaps: missing values are to be filled before.",
        *(
            [
                f"All {len(card.series)} series share the weights and the scaling; a series that is new was not tested."
            ]
            if card.series
            else []
        ),
    ]
