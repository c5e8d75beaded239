"""Circuits as objects of Qiskit, which writes, draws and transpiles them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
from matplotlib.figure import Figure
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import get_standard_gate_name_mapping

from models.circuits.circuit import Gate, SuperCircuit
from models.search.genotype import Genotype
from stages.pictures import INK, LINE, NODE, PAPER

_FOLD, _FOLD_NARROW = 20, 6  # gates side by side
_BROAD, _NARROW = 9.0, 3.8  # inches: the width of the report's page, and of a phone
_TWO_QUBITS = "#2b6cb0"  # readable on white and on black


@cache
def _kinds() -> dict[str, type]:
    return {name: type(gate) for name, gate in get_standard_gate_name_mapping().items()}


def append(circuit: QuantumCircuit, gate: Gate, angles: Sequence[float | Parameter] | None = None) -> None:
    """Adds a gate, with other ``angles`` than its own if these are given."""
    circuit.append(_kinds()[gate.name](*(gate.angles if angles is None else angles)), gate.qubits)


def bound_circuit(
    moments: Sequence[Sequence[Gate]], qubits: int, initial: int = 0, *, barriers: bool = False
) -> QuantumCircuit:
    """The circuit of these gates. X gates first make the basis state ``initial``; ``barriers`` separate the moments."""
    circuit = prepared(qubits, initial)
    for moment in moments:
        for gate in moment:
            append(circuit, gate)
        if barriers:
            circuit.barrier()
    return circuit


def prepared(qubits: int, initial: int) -> QuantumCircuit:
    """A circuit that makes a basis state."""
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        if initial >> qubit & 1:
            circuit.x(qubit)
    return circuit


def with_symbols(circuit: SuperCircuit, genotype: Genotype, initial: int) -> QuantumCircuit:
    """A found circuit whose angles are not known yet: θ of the place, with a letter where it has several."""
    drawn, number = prepared(circuit.qubits, initial), 0
    del genotype  # the circuit has one candidate per place, which is the genotype's
    for moment in circuit.moments:
        for element in moment:
            if isinstance(element, Gate):
                append(drawn, element)
                continue
            number += 1
            (operation,) = element.candidates
            letters = "abcdefgh"[: operation.num_angles] if operation.num_angles > 1 else [""]
            symbols = {
                _marker(place): Parameter(f"θ{number}{letter}") for place, letter in enumerate(letters)
            }
            # Angles that stand for symbols, which the gates carry to where these belong.
            for gate in operation.gates(list(symbols), circuit.qubits, circuit.couplings):
                append(drawn, gate, [symbols.get(angle, angle) for angle in gate.angles])
    return drawn


def _marker(place: int) -> float:
    """A number that is no angle of anybody's."""
    return 1e6 + place


def draw(file: Path | BinaryIO, circuit: QuantumCircuit, *, narrow: bool) -> None:
    """Draws with the colours of the report, which follow its theme. Short circuits are not blown up."""
    style: dict[str, Any] = {
        "backgroundcolor": "none",
        "linecolor": INK,
        "textcolor": INK,
        "gatetextcolor": INK,
        "subtextcolor": INK,
        "gatefacecolor": NODE,
        "barrierfacecolor": LINE,
        "edgecolor": INK,
        "displaycolor": {
            name: (NODE, INK) if single else (_TWO_QUBITS, PAPER) for name, single in _used(circuit).items()
        },
    }
    width = _NARROW if narrow else _BROAD
    with matplotlib.rc_context({"text.parse_math": True}):
        fold = _FOLD_NARROW if narrow else _FOLD
        figure = circuit.draw("mpl", style=style, fold=fold, plot_barriers=True, idle_wires=True)
        assert isinstance(figure, Figure)
        for axes in figure.axes:
            axes.set_position((0, 0, 1, 1))
        own, height = figure.get_size_inches()
        if own < width:  # room beside the circuit instead of larger letters
            (axes,) = figure.axes
            left, right = axes.get_xlim()
            axes.set_xlim(left, left + (right - left) * width / own)
            figure.set_size_inches(width, height)
        figure.savefig(file, dpi=120)


def _used(circuit: QuantumCircuit) -> dict[str, bool]:
    """Name of a gate -> whether it acts on one qubit."""
    return {instruction.operation.name: len(instruction.qubits) == 1 for instruction in circuit.data}


def depth_and_gates(circuit: QuantumCircuit, prefix: str = "") -> dict[str, float]:
    """The depth, the number of gates, and the number of gates on two or more qubits; barriers do not count."""
    gates = [instruction for instruction in circuit.data if instruction.operation.name != "barrier"]
    several = sum(len(instruction.qubits) > 1 for instruction in gates)
    depth = circuit.depth(lambda instruction: instruction.operation.name != "barrier")
    assert math.isfinite(depth)
    return {
        f"{prefix}depth": float(depth),
        f"{prefix}gates": float(len(gates)),
        f"{prefix}two_qubit_gates": float(several),
    }
