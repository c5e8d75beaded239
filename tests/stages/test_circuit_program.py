"""The reader of OpenQASM 3 gives the same unitary as Qiskit and the QDK, for what Qiskit writes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.circuits.circuit import Gate, Hole
from models.circuits.gates import GATES
from models.circuits.simulate import final_state, unitary_of
from tests.stages.circuits import needs_packages

pytestmark = needs_packages


def random_circuit(qubits: int, seed: int) -> Any:
    """A circuit of Qiskit with every gate that is known, at random places and angles."""
    from qiskit import QuantumCircuit

    from stages.circuits.architectures import append
    from stages.circuits.export import portable

    source = np.random.default_rng(seed)
    circuit = QuantumCircuit(qubits)
    for name in source.permutation([name for name, kind in GATES.items() if kind.num_qubits <= qubits]):
        kind = GATES[str(name)]
        where = tuple(int(qubit) for qubit in source.permutation(qubits)[: kind.num_qubits])
        for gate in portable(Gate(str(name), where, tuple(source.uniform(-7, 7, kind.num_angles)))):
            append(circuit, gate)
    return circuit


def basis_state(number: int, qubits: int) -> list[Gate]:
    """The gates that make it."""
    return [Gate("x", (qubit,)) for qubit in range(qubits) if number >> qubit & 1]


def distance(ours: Any, theirs: Any) -> float:
    """Between matrices or states, up to a phase."""
    phase = np.vdot(theirs, ours)
    return float(np.abs(ours - theirs * phase / abs(phase)).max())


@pytest.mark.parametrize("qubits", [1, 2, 3, 4])
def test_what_qiskit_writes_is_read_as_qiskit_and_the_qdk_mean_it(qubits: int, tmp_path: Path) -> None:
    from qiskit import qasm3
    from qiskit.quantum_info import Operator

    from stages.circuits.export.reading import final_states
    from stages.circuits.prepare.program import read_program

    circuit = random_circuit(qubits, qubits)
    (tmp_path / "circuit.qasm").write_text(qasm3.dumps(circuit))
    program = read_program(tmp_path / "circuit.qasm")
    assert program.qubits == qubits and program.holes == 0
    ours = unitary_of(program.gates, qubits).numpy()
    assert distance(ours, Operator(circuit).data) < 1e-8
    inputs = [basis_state(number, qubits) for number in range(2**qubits)]
    for start, theirs in enumerate(final_states(tmp_path / "circuit.qasm", qubits, inputs)):
        assert distance(final_state(program.gates, qubits, start).numpy(), theirs) < 1e-8


@pytest.mark.parametrize("name", ["crx", "cry", "crz"])
@pytest.mark.parametrize("angle", [-7.0, -1.0, 0.0, 3.0, 6.0, 7.0, 100.0])
def test_controlled_rotations_have_no_angle_that_readers_could_wrap(name: str, angle: float) -> None:
    from stages.circuits.export import portable

    gate = Gate(name, (1, 0), (angle,))
    parts = portable(gate)
    assert all(0 <= value < 2 * math.pi for part in parts for value in part.angles)
    np.testing.assert_allclose(unitary_of(parts, 2), unitary_of([gate], 2), atol=1e-12)


def test_a_wrong_file_is_noticed_by_the_other_reader(tmp_path: Path) -> None:
    from stages.circuits.export.reading import final_states
    from stages.errors import UserError

    (tmp_path / "circuit.qasm").write_text(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[1] q;\nrx(tensor) q[0];\n'
    )
    with pytest.raises(UserError, match="circuit.qasm cannot be read back"):
        final_states(tmp_path / "circuit.qasm", 1, [[]])


def test_barriers_separate_moments_and_gates_are_early_without_them() -> None:
    from stages.circuits.prepare.program import parsed

    h0, h1, cx = Gate("h", (0,)), Gate("h", (1,)), Gate("cx", (0, 1))
    early = parsed("qubit[2] q;\nh q[0];\ncx q[0], q[1];\nhole q[1];\n", "")
    assert early.moments == [[h0], [cx], [Hole(1)]]
    early = parsed("qubit[2] q;\nh q[0];\nh q[1];\ncx q[0], q[1];\n", "")
    assert early.moments == [[h0, h1], [cx]]
    divided = parsed(
        "qubit[2] q;\nh q[0];\nbarrier q;\nh q[1];\nbarrier q[0], q[1];\nid q[0];\nbarrier q;\n", ""
    )
    assert divided.moments == [[h0], [h1], []]
    part = parsed("qubit[2] q;\nh q[0];\nbarrier q[0];\nh q[1];\n", "")
    assert part.moments == [[h0, h1]], "a barrier on some of the qubits divides nothing"


def test_registers_definitions_and_expressions_are_what_the_language_says() -> None:
    from stages.circuits.prepare.program import parsed

    text = (
        "OPENQASM 3.0;\ngate turn(a, b) x, y { rx(-a / 2) y; cx x, y; rz(b ** 2 + pi) x; }\n"
        "qubit one;\nqubit[2] two;\nh two;\nturn(pi, 0.5) one, two[1];\nU(1, 2, 3) one;\ngphase(1);\nhole two;\n"
    )
    program = parsed(text, "")
    elements = [element for moment in program.moments for element in moment]
    gates = [element for element in elements if isinstance(element, Gate)]
    assert program.qubits == 3
    assert gates[:2] == [Gate("h", (1,)), Gate("h", (2,))]
    assert Gate("rx", (2,), (-math.pi / 2,)) in gates and Gate("cx", (0, 2)) in gates
    assert Gate("rz", (0,), (0.25 + math.pi,)) in gates and Gate("u", (0,), (1.0, 2.0, 3.0)) in gates
    assert [element.qubit for element in elements if isinstance(element, Hole)] == [1, 2]
