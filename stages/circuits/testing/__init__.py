"""Evaluates a found circuit with its angles on the test cases, in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from models.circuits.circuit import SuperCircuit
from models.circuits.objective import ANGLES
from models.circuits.scores import per_case
from models.search.genotype import Genotype
from stages.circuits.data import CircuitCard, cases_sha256, found_circuit, inputs_of, read_card, target_of
from stages.circuits.params import METRICS, Params
from stages.evaluation import Evaluation
from stages.genotypes import read_genotype

_GOOD = 0.99  # fidelity
CHEMICAL_ACCURACY = 1.6e-3  # hartree
# What export measures besides the score, and a version shows.
COUNTS = (
    "depth",
    "gates",
    "two_qubit_gates",
    "transpiled_depth",
    "transpiled_gates",
    "transpiled_two_qubit_gates",
    "noisy_fidelity",
)


def found() -> tuple[CircuitCard, SuperCircuit, Genotype]:
    """What was asked for, and the circuit that was found."""
    card, genotype = read_card(), read_genotype("circuits")
    return card, found_circuit(card, genotype), genotype


def evaluation_of(card: CircuitCard, scores: Tensor, **costs: float) -> Evaluation:
    """The evaluation of the scores of all test cases."""
    values = np.asarray(scores.numpy(), dtype=np.float64)
    return Evaluation(float(values.mean()), values, cases_sha256(card), costs)


def load_angles(weights: Path) -> Tensor:
    """The angles (places, most of any operation) of the retrained circuit."""
    return load_file(weights)[ANGLES]


def free_angles(circuit: SuperCircuit) -> int:
    """How many angles the circuit has."""
    return sum(candidate.num_angles for place in circuit.places for candidate in place.candidates)


def evaluate_weights(params: Params, weights: Path) -> Evaluation:
    card, circuit, genotype = found()
    scores = per_case(target_of(card, "test"), circuit, genotype, load_angles(weights), inputs_of(card))
    return evaluation_of(card, scores, params=free_angles(circuit))


def class_scores(evaluation: Evaluation) -> Mapping[str, float | None] | None:
    return None


def notices(evaluation: Evaluation) -> Sequence[str]:
    card = read_card()
    return [words] if (words := notice(card, evaluation.score)) else []


def notice(card: CircuitCard, score: float) -> str | None:
    """What a user should know about a score; None where there is nothing."""
    more = "raise search.places, search.restarts or search.epochs, or offer other operations"
    metric, reference = METRICS[card.kind], card.reference
    match card.kind:
        case "state" | "unitary" if score < _GOOD:
            return f"the circuit misses its target: the {metric.words} is {score:.4f}; {more}"
        case "mitigation" if reference is not None and score <= reference:
            return (
                f"the circuit is no better than with empty holes, whose fidelity is {reference:.4f}; {more}"
            )
        case "vqe" if reference is not None and score - reference > CHEMICAL_ACCURACY:
            return (
                f"the energy is {score - reference:.4g} above the exact ground energy ({reference:.6g}), more than"
                f" {CHEMICAL_ACCURACY:g}; {more}"
            )
    return None


def write_results(folder: Path, evaluation: Evaluation) -> None:
    pass
