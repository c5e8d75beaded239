"""Writes the found circuit as circuit.qasm, reads it back with another project's reader, and says what it costs on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.circuits.circuit import Gate, SuperCircuit
from models.circuits.scores import per_case
from models.circuits.simulate import final_state
from stages.circuits.architectures import append, draw, prepared
from stages.circuits.data import CircuitCard, inputs_of, target_of
from stages.circuits.export.device import depth_and_gates, on_device
from stages.circuits.export.reading import final_states
from stages.circuits.exported import evaluate
from stages.circuits.params import METRICS, Params
from stages.circuits.testing import found, free_angles, load_angles
from stages.contracts import ExportResult
from stages.errors import UserError
from stages.plumbing.files import RETRAIN, file_sha256
from stages.records import ExportRecord

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

FILE, PICTURE = "circuit.qasm", "circuit.png"
_SAME = 1e-8  # as which the states of two simulators count as the same
_INPUTS = 16  # basis states from which the two are compared


def export(params: Params, folder: Path) -> ExportResult:
    from qiskit import qasm3  # slow to import

    card, circuit, genotype = found()
    angles = load_angles(RETRAIN / "weights.safetensors")
    moments = bound_moments(circuit, angles)
    written = bound_circuit(moments, card.qubits, card.initial, barriers=bool(circuit.noise))
    path = folder / FILE
    path.write_text(f"{_head(card)}{qasm3.dumps(written)}", encoding="utf-8")
    draw(folder / PICTURE, written, narrow=False)
    difference = compared(path, [gate for moment in moments for gate in moment], card)
    evaluation = evaluate(path)
    ours = per_case(target_of(card, "test"), circuit, genotype, angles, inputs_of(card))
    difference = max(difference, float(np.abs(ours.numpy() - evaluation.per_case).max()))
    if not difference <= _SAME:
        raise UserError(
            f"{FILE} is not the circuit that was trained: they differ by {difference:.2g}; nothing was exported"
        )
    costs = {**depth_and_gates(written), **on_device(written, params.export)}
    evaluation = type(evaluation)(
        evaluation.score,
        evaluation.per_case,
        evaluation.cases_sha256,
        {**evaluation.costs, "params": free_angles(circuit), **costs},
    )
    record = ExportRecord(
        file=FILE,
        test_cases=len(evaluation.per_case),
        test_score=evaluation.score,
        largest_difference=difference,
        latency_ms={},
        threads=torch.get_num_threads(),
        size_bytes=path.stat().st_size,
        params=free_angles(circuit),
        properties=costs,
        model_sha256=file_sha256(path),
    )
    return ExportResult(record, evaluation, lines(record, card))


def bound_moments(circuit: SuperCircuit, angles: torch.Tensor) -> list[list[Gate]]:
    """The gates of a circuit with one candidate per place, moment by moment, at angles (places, most of any operation)."""
    values = iter(angles.tolist())
    moments: list[list[Gate]] = []
    for moment in circuit.moments:
        gates: list[Gate] = []
        for element in moment:
            if isinstance(element, Gate):
                gates.append(element)
            else:
                (operation,) = element.candidates
                gates += operation.gates(next(values), circuit.qubits, circuit.couplings)
        moments.append(gates)
    return moments


def portable(gate: Gate) -> list[Gate]:
    """The gate in a form that every reader takes for the same.

    The angles of OpenQASM 3 are modulo 2 pi, of which some readers make use and others do not. It matters for controlled
    rotations, whose period is 4 pi: in the second half of it, they are a rotation from the first half and a sign.
    """
    if gate.name not in ("crx", "cry", "crz"):
        return [gate]
    (angle,) = (angle % (4 * math.pi) for angle in gate.angles)
    if angle < 2 * math.pi:
        return [Gate(gate.name, gate.qubits, (angle,))]
    return [Gate("z", gate.qubits[:1]), Gate(gate.name, gate.qubits, (angle - 2 * math.pi,))]


def compared(path: Path, gates: Sequence[Gate], card: CircuitCard) -> float:
    """The largest distance of a final state in the file, by another project's reader and simulator, from ours.

    States are compared up to a phase: from the state that the file starts from or, where all inputs count, from up to 16
    basis states, and from the sum of all of them, which has the phases between these.
    """
    whole = card.kind in ("unitary", "mitigation")
    starts = range(min(2**card.qubits, _INPUTS)) if whole else [0]
    inputs = [
        ([Gate("x", (qubit,)) for qubit in range(card.qubits) if start >> qubit & 1]) for start in starts
    ]
    if whole:
        inputs.append([Gate("h", (qubit,)) for qubit in range(card.qubits)])
    largest = 0.0
    for first, theirs in zip(inputs, final_states(path, card.qubits, inputs), strict=True):
        ours = final_state([*first, *gates], card.qubits, 0 if whole else card.initial).numpy()
        phase = np.vdot(theirs, ours)
        largest = max(largest, float(np.linalg.norm(ours - theirs * phase / max(abs(phase), 1e-300))))
    return largest


def lines(record: ExportRecord, card: CircuitCard) -> list[str]:
    """What the stage prints about the file."""
    metric, costs = METRICS[card.kind], record.properties or {}

    def counted(prefix: str) -> str:
        names = ("depth", "gates", "two_qubit_gates")
        depth, gates, several = (int(costs[f"{prefix}{name}"]) for name in names)
        return f"depth {depth}, {gates} gates, {several} of them on two qubits or more"

    return [
        f"{record.file}, {metric.words} {metric.text(record.test_score)}; read back and simulated by another project, it is the"
        f" same within {record.largest_difference:.1e}",
        f"{counted('')}; on a line of {card.qubits} qubits: {counted('transpiled_')}, and fidelity"
        f" {costs['noisy_fidelity']:.4f} to the noiseless circuit under the device's noise",
    ]


def _head(card: CircuitCard) -> str:
    """Remarks before the circuit."""
    return (
        f"// {card.kind} {card.target}, {card.qubits} qubits. Qubit 0 is the least significant bit of a basis state's index.\n"
        "// Starts from the state in which all qubits are 0.\n"
    )


def bound_circuit(
    moments: Sequence[Sequence[Gate]], qubits: int, initial: int = 0, *, barriers: bool = False
) -> QuantumCircuit:
    """The circuit of these gates. X gates first make the basis state ``initial``; ``barriers`` separate the moments."""
    circuit = prepared(qubits, initial)
    for moment in moments:
        for gate in (part for given in moment for part in portable(given)):
            append(circuit, gate)
        if barriers:
            circuit.barrier()
    return circuit
