"""What the report and the model card say about a circuit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.circuits.data import read_card
from stages.contracts import Words

if TYPE_CHECKING:
    from markupsafe import Markup

    from stages.circuits.params import Params
    from stages.evaluation import Evaluation
    from stages.registry.card import TaskCard

SHORT = {
    "state": "prepares the state {target}",
    "unitary": "computes the unitary {target}",
    "mitigation": "repairs the noisy circuit {target}",
    "maxcut": "cuts the graph {target}",
    "vqe": "has a low energy of the Hamiltonian {target}",
}


def words() -> Words:
    return Words(
        parts="circuit",
        place="place",
        weights="angles",
        reading=(
            "Each place holds one operation, and θ is an angle that was trained. Qubit 0 is the least significant bit of a basis"
            " state's index."
        ),
        signs=(
            "All panels except the first two show how the search decides: the entropy of the mix falls, and the most likely"
            " circuit changes less and less. Scores are those of the restart that was best in an epoch: the mean over all"
            " circuits that its mix can draw."
        ),
        choosing="for the mean over all circuits that the mix can draw, and for the most likely one",
        gap=(
            "what the search loses when each place keeps its most likely operation instead of drawing one: with the angles of the"
            " search, its validation {name} goes from {before} to {after}. The angles of the circuit above were trained anew."
        ),
        anew="The angles of the circuit were trained anew, from several starts,",
    )


def data_words() -> str:
    card = read_card()
    tested = f"{card.counts['test']} random input states" if card.kind in ("unitary", "mitigation") else ""
    holes = f", with {card.holes} holes" if card.holes else ""
    return f"{card.kind}, {card.in_words()}{holes}{f'; tested on {tested}' if tested else ''}."


def test_panel(params: Params, evaluation: Evaluation) -> Markup:
    from stages.circuits.views.texts import panel  # only the report needs it

    return panel(evaluation)


def card(evaluation: Evaluation, params: Params) -> TaskCard:
    from stages.circuits.views.texts import task_card  # only the stage register needs it

    return task_card(evaluation, params)
