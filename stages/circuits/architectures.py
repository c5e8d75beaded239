"""The space of circuits, genotype.json, and how a found circuit is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from models.circuits import circuit as circuits
from models.circuits.circuit import FAMILY, GROUP, Gate, SuperCircuit, names
from models.circuits.notation import operation
from models.errors import InvalidInput
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from stages.circuits.data import found_circuit, read_card, super_circuit
from stages.contracts import Layout

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_FOLD, _FOLD_NARROW = 20, 6  # gates side by side
_BROAD, _NARROW = 9.0, 3.8  # inches: the width of the report's page, and of a phone
_TWO_QUBITS = "#2b6cb0"  # readable on white and on black


def space(name: str, *, exclude_none: bool) -> SearchSpace:
    """The search space for the prepared target. ``name`` is JSON with the candidate operations and the number of places."""
    described = json.loads(name)
    return circuits.space(super_circuit(read_card(), described["operations"], described["places"]))


def genotype_json(genotype: Genotype) -> dict[str, Any]:
    return {"space": FAMILY, "qubits": read_card().qubits, "operations": list(names(genotype))}


def genotype_of(content: Mapping[str, Any]) -> Genotype:
    if content.get("space") != FAMILY:
        raise InvalidInput(f"genotype: space is {content.get('space')!r}; it should be {FAMILY}")
    qubits, operations = content.get("qubits"), content.get("operations")
    if not isinstance(qubits, int):
        raise InvalidInput(f"genotype: qubits is {qubits!r}; write a number")
    circuits.check_qubits(qubits)
    if (
        not isinstance(operations, list)
        or not operations
        or not all(isinstance(name, str) for name in operations)
    ):
        raise InvalidInput("genotype: operations should be a list of names such as ry(0), one per place")
    for name in operations:
        operation(name, qubits)
    return circuits.genotype(operations)


def layout(genotype: Genotype) -> Layout:
    places = len(names(genotype))
    return Layout(
        nodes=[str(place) for place in range(places + 1)],
        inputs=1,
        outputs=[places],
        titles={GROUP: "circuit"},
        rows=[f"place {place + 1}" for place in range(places)],
        drawings={GROUP: partial(_draw, genotype)},
    )


def _draw(genotype: Genotype, file: Path | BinaryIO, *, narrow: bool) -> None:
    card = read_card()
    draw(file, with_symbols(found_circuit(card, genotype), card.initial), narrow=narrow)


def prepared(qubits: int, initial: int) -> QuantumCircuit:
    """A circuit of Qiskit that makes a basis state."""
    from qiskit import (
        QuantumCircuit,  # here and below, because it takes seconds, and most stages draw nothing
    )

    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        if initial >> qubit & 1:
            circuit.x(qubit)
    return circuit


def append(circuit: QuantumCircuit, gate: Gate, angles: Sequence[Any] | None = None) -> None:
    """Adds a gate, with other ``angles`` than its own if these are given."""
    circuit.append(_kinds()[gate.name](*(gate.angles if angles is None else angles)), gate.qubits)


@cache
def _kinds() -> dict[str, type]:
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return {name: type(gate) for name, gate in get_standard_gate_name_mapping().items()}


def with_symbols(circuit: SuperCircuit, initial: int) -> QuantumCircuit:
    """A circuit with one candidate per place, whose angles are not known yet: θ of the place, with a letter for each."""
    from qiskit.circuit import Parameter

    drawn, number = prepared(circuit.qubits, initial), 0
    for element in (element for moment in circuit.moments for element in moment):
        if isinstance(element, Gate):
            append(drawn, element)
            continue
        number += 1
        (operation,) = element.candidates
        letters = "abcdefgh"[: operation.num_angles] if operation.num_angles > 1 else [""]
        # Numbers that are nobody's angles stand for the symbols, and the gates carry them to where these belong.
        symbols = {1e6 + place: Parameter(f"θ{number}{letter}") for place, letter in enumerate(letters)}
        for gate in operation.gates(list(symbols), circuit.qubits, circuit.couplings):
            append(drawn, gate, [symbols.get(angle, angle) for angle in gate.angles])
    return drawn


def draw(file: Path | BinaryIO, circuit: QuantumCircuit, *, narrow: bool) -> None:
    """Draws with the colours of the report, which follow its theme. Short circuits are not blown up."""
    import matplotlib
    from matplotlib.figure import Figure

    from stages.pictures import INK, LINE, NODE, PAPER

    gates = {part.operation.name: len(part.qubits) == 1 for part in circuit.data}
    style: dict[str, Any] = {
        "backgroundcolor": "none",
        **dict.fromkeys(("linecolor", "textcolor", "gatetextcolor", "subtextcolor", "edgecolor"), INK),
        "gatefacecolor": NODE,
        "barrierfacecolor": LINE,
        "displaycolor": {
            name: (NODE, INK) if single else (_TWO_QUBITS, PAPER) for name, single in gates.items()
        },
    }
    width, fold = (_NARROW, _FOLD_NARROW) if narrow else (_BROAD, _FOLD)
    with matplotlib.rc_context({"text.parse_math": True}):
        figure = circuit.draw("mpl", style=style, fold=fold, plot_barriers=True, idle_wires=True)
        assert isinstance(figure, Figure)
        own, height = figure.get_size_inches()
        for axes in figure.axes:
            axes.set_position((0, 0, 1, 1))
            if own < width:  # room beside the circuit instead of larger letters
                left, right = axes.get_xlim()
                axes.set_xlim(left, left + (right - left) * width / own)
        figure.set_size_inches(max(own, width), height)
        figure.savefig(file, dpi=120)
