"""What circuit.qasm does: the file is read, and the circuit in it simulated with the noise and the cases of the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.circuits.circuit import Gate, SuperCircuit, genotype
from models.circuits.scores import per_case
from stages.circuits.data import inputs_of, noise_of, read_card, target_of
from stages.circuits.prepare.program import Program, read_program
from stages.circuits.testing import COUNTS, evaluation_of
from stages.errors import UserError
from stages.evaluation import Evaluation


def evaluate(exported: Path) -> Evaluation:
    program, card = read_program(exported), read_card()
    circuit = circuit_of(program)
    # The file begins with the gates that make the initial state.
    target = replace(target_of(card, "test"), initial=0)
    if circuit.qubits != card.qubits:
        raise UserError(
            f"{exported} has {circuit.qubits} qubits, but the target {card.qubits}; run `dvc repro -f export`"
        )
    scores = per_case(target, circuit, genotype(()), torch.zeros(0, 1), inputs_of(card))
    return evaluation_of(card, scores, size_bytes=float(exported.stat().st_size))


def circuit_of(program: Program) -> SuperCircuit:
    """The circuit of a file without places, under the noise of the test."""
    moments = tuple(
        tuple(element for element in moment if isinstance(element, Gate)) for moment in program.moments
    )
    return SuperCircuit(program.qubits, moments, (), noise_of(read_card()))


def answers(exported: Path, cases: int) -> NDArray[np.float64]:
    return evaluate(exported).per_case[:cases]


def one_call(exported: Path) -> Callable[[], object] | None:
    return None  # a circuit runs on a device, which is not here


def example() -> Mapping[str, NDArray[Any]]:
    return {}


def measures(evaluation: Evaluation) -> Mapping[str, float]:
    return {name: evaluation.costs[name] for name in COUNTS if name in evaluation.costs}


def version_tags() -> Mapping[str, str]:
    card = read_card()
    return {"target": f"{card.kind} {card.target}", "qubits": str(card.qubits)}
