"""The report's section about the test, and the parts of the model card that are about circuits."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup, escape

from models.search.genotype import Genotype
from stages.circuits.data import CircuitCard, read_card
from stages.circuits.params import METRICS, Params
from stages.circuits.testing import CHEMICAL_ACCURACY, COUNTS, notice
from stages.circuits.views import SHORT
from stages.evaluation import Evaluation
from stages.genotypes import read_genotype
from stages.registry.card import TaskCard
from stages.registry.markdown import plain, table

_LABELS = {
    "depth": "depth",
    "gates": "gates",
    "two_qubit_gates": "gates on two qubits or more",
    "transpiled_depth": "depth on the device",
    "transpiled_gates": "gates on the device",
    "transpiled_two_qubit_gates": "gates on two qubits on the device",
    "noisy_fidelity": "fidelity to the noiseless circuit under the device's noise",
}
_DEVICE = (
    "The device is Qiskit's generic backend with the basis gates of `export.basis` and its qubits on a line."
)


def rows(evaluation: Evaluation, card: CircuitCard) -> list[tuple[str, str]]:
    """What was measured: the score, what it is compared with, and what the circuit costs."""
    metric, scores = METRICS[card.kind], evaluation.per_case
    found = [(f"test {metric.words}", metric.text(evaluation.score))]
    if len(scores) > 1:
        found += [
            (f"lowest of {len(scores)} {metric.case}s", metric.text(float(scores.min()))),
            ("standard deviation", f"{float(np.std(scores)):.4g}"),
        ]
    found += references(evaluation.score, card)
    for name in COUNTS:
        if name in evaluation.costs:
            value = evaluation.costs[name]
            found.append((_LABELS[name], f"{value:.4f}" if name == "noisy_fidelity" else f"{value:.0f}"))
    return found


def references(score: float, card: CircuitCard) -> list[tuple[str, str]]:
    """What the score is to be compared with."""
    if card.reference is None:
        return []
    match card.kind:
        case "vqe":
            return [
                ("exact ground energy", f"{card.reference:.6f}"),
                ("above it", f"{score - card.reference:.2e} (chemical accuracy: {CHEMICAL_ACCURACY:g})"),
            ]
        case "maxcut":
            return [
                ("expected cut", f"{score * card.reference:.4g}"),
                ("largest cut", f"{card.reference:.0f}"),
            ]
        case _:
            return [("fidelity with empty holes", f"{card.reference:.4f}")]


def panel(evaluation: Evaluation) -> Markup:
    """The report's section about the test."""
    card = read_card()
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows(evaluation, card)
    ]
    said = escape(_DEVICE.replace("`", ""))
    warned = (
        f"<p>{escape(words[0].upper() + words[1:])}.</p>" if (words := notice(card, evaluation.score)) else ""
    )
    return Markup(f'{warned}<table>{"".join(lines)}</table><p class="quiet">{said}</p>')


def task_card(evaluation: Evaluation, params: Params) -> TaskCard:
    """The parts of the model card."""
    card, metric = read_card(), METRICS[read_card().kind]
    genotype = read_genotype("circuits")
    said = SHORT[card.kind].format(target=card.target)
    search = params.search
    return TaskCard(
        headline=f"A circuit on {card.qubits} qubits that {said}: test {metric.words} {metric.text(evaluation.score)}.",
        description=(
            f"A circuit of {_operations(genotype)}, found by {search.strategy} among {len(search.operations)} operations per"
            f" place, with {search.restarts} restart{'s' if search.restarts != 1 else ''}; its angles were trained from"
            f" {params.retrain.starts} starts."
        ),
        contract=[
            "`circuit.qasm`: OpenQASM 3 with standard gates and bound angles, from the state in which all qubits are 0. Qubit 0 is"
            " the least significant bit of a basis state's index."
        ],
        licence="none" if card.target != "file" else "that of the user's file",
        results={
            "Test and costs": f"{table(('', ''), [(name, plain(value)) for name, value in rows(evaluation, card)])}\n\n{_DEVICE}"
        },
        limits=[
            "Nothing was run on a quantum computer. The noise of a real device differs from that of the generic backend.",
            "A global phase is not part of what was asked for, nor of what was tested.",
            *(
                ["The test is the target itself: no other cases exist."]
                if len(evaluation.per_case) == 1
                else []
            ),
        ],
        groups=list(genotype.groups),
        weights="angles",
        notices=[words] if (words := notice(card, evaluation.score)) else [],
    )


def _operations(genotype: Genotype) -> str:
    places = sum(map(len, genotype.groups.values()))
    return f"{places} place{'s' if places != 1 else ''}"
