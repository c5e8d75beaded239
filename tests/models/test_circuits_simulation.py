"""States, unitaries and density matrices against qiskit, which is independent of this code, and closed forms."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from models.circuits.channels import CHANNELS, Noise, channel, noise
from models.circuits.circuit import Gate, Place, SuperCircuit, bound, genotype
from models.circuits.evolution import evolution, pure_start
from models.circuits.gates import GATES
from models.circuits.named import named_state, qft, qft_holes
from models.circuits.notation import line, moments_of, operation, sequence
from models.circuits.simulate import density_matrix, final_state, superoperator_of, unitary_of

CIRCUITS, EXACT = 200, 1e-10


def random_gates(source: random.Random, qubits: int, count: int) -> list[Gate]:
    gates = []
    for _ in range(count):
        name = source.choice([name for name, kind in GATES.items() if kind.num_qubits <= qubits])
        kind = GATES[name]
        angles = tuple(source.uniform(-math.pi, math.pi) for _ in range(kind.num_angles))
        gates.append(Gate(name, tuple(source.sample(range(qubits), kind.num_qubits)), angles))
    return gates


def test_states_of_random_circuits_are_those_of_qiskit() -> None:
    qiskit = pytest.importorskip("qiskit", reason="the extra circuits is not installed")
    from qiskit.quantum_info import Statevector

    source = random.Random(0)
    for _ in range(CIRCUITS):
        qubits = source.randint(1, 5)
        gates = random_gates(source, qubits, 12)
        theirs = qiskit.QuantumCircuit(qubits)
        for gate in gates:
            getattr(theirs, gate.name)(*gate.angles, *gate.qubits)
        expected = torch.from_numpy(Statevector(theirs).data)
        torch.testing.assert_close(final_state(gates, qubits), expected, atol=EXACT, rtol=0)


def evolved(state: Any, gates: list[Gate], channels: list[tuple[str, int]]) -> Any:
    """A density matrix of qiskit after gates and channels on single qubits."""
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import Kraus

    circuit = QuantumCircuit(state.num_qubits)
    for gate in gates:
        getattr(circuit, gate.name)(*gate.angles, *gate.qubits)
    state = state.evolve(circuit)
    for text, qubit in channels:
        kraus = [torch.tensor(matrix, dtype=torch.complex128).numpy() for matrix in channel(text).kraus()]
        state = state.evolve(Kraus(kraus), [qubit])  # pyright: ignore[reportArgumentType]
    return state


def test_density_matrices_of_random_noisy_circuits_are_those_of_qiskit() -> None:
    pytest.importorskip("qiskit", reason="the extra circuits is not installed")
    from qiskit.quantum_info import DensityMatrix

    source = random.Random(1)
    for _ in range(CIRCUITS):
        qubits = source.randint(2, 3)
        idle, after, of_gate = (
            [f"{name}({source.random():.3f})"] for name in source.choices(list(CHANNELS), k=3)
        )
        moments = moments_of(random_gates(source, qubits, 3), qubits)
        gates = tuple(tuple(element for element in moment if isinstance(element, Gate)) for moment in moments)
        circuit = SuperCircuit(qubits, gates, (), noise(idle, after, of_gate))
        found = density_matrix(circuit, genotype([]), torch.zeros(0, 1))
        expected = DensityMatrix.from_int(0, 2**qubits)
        for moment in gates:
            busy = {qubit for gate in moment for qubit in gate.qubits}
            expected = evolved(expected, [], [(idle[0], q) for q in range(qubits) if q not in busy])
            for gate in moment:
                expected = evolved(expected, [gate], [(of_gate[0], q) for q in gate.qubits])
            expected = evolved(expected, [], [(after[0], q) for q in range(qubits)])
        torch.testing.assert_close(found, torch.from_numpy(expected.data), atol=EXACT, rtol=0)


def test_known_circuits_make_known_states_and_unitaries() -> None:
    ghz = [Gate("h", (0,)), Gate("cx", (0, 1)), Gate("cx", (1, 2))]
    torch.testing.assert_close(final_state(ghz, 3), named_state("ghz", 3))
    # cos and sin of half the angle; qubit 0 is the least significant bit
    turned = final_state([Gate("ry", (0,), (0.8,)), Gate("x", (1,))], 2)
    expected = torch.tensor([0, 0, math.cos(0.4), math.sin(0.4)], dtype=torch.complex128)
    torch.testing.assert_close(turned, expected)
    gates = [element for moment in qft_holes(3) for element in moment if isinstance(element, Gate)]
    torch.testing.assert_close(unitary_of([*gates, Gate("swap", (0, 2))], 3), qft(3))


def test_sampled_circuits_are_those_that_run_one_by_one() -> None:
    pool = ["id", "u(1)", "cry(0,2)", "rx(*)", "rzz(*)+ry(*)", "rx[pi/3](0)+cx(2,1)", "ryy(*)"]
    circuit = sequence(3, pool, 3)
    source = torch.Generator().manual_seed(0)
    angles = torch.randn(2, 3, len(pool), circuit.num_angles, generator=source, dtype=torch.float64)
    choices = torch.randint(len(pool), (40, 3), generator=source)
    sets = torch.arange(40) % 2
    states, index = evolution(circuit).sampled(pure_start(3), angles, sets, choices)
    assert states.shape[-1] <= 40
    for number, row in enumerate(choices.tolist()):
        found = genotype(pool[op] for op in row)
        own = angles[number % 2][torch.arange(3), choices[number]]
        expected = final_state(bound(circuit, found, own), 3)
        torch.testing.assert_close(states[..., 0, index[number]].flatten(), expected)


@pytest.mark.parametrize(
    "kind", [Noise(), noise(["bit_flip(0.1)"], ["depolarizing(0.05)"], ["amplitude_damping(0.2)"])]
)
def test_a_mixture_is_the_mean_of_its_circuits(kind: Noise) -> None:
    pool = ["id", "ry(0)", "cx(0,1)"]
    circuit = sequence(2, pool, 2, noise=kind)
    angles = torch.randn(1, 2, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mix = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]], dtype=torch.float64)
    mixed = evolution(circuit, density=True).mixed(pure_start(4), angles, mix).reshape(4, 4)
    expected = torch.zeros(4, 4, dtype=torch.complex128)
    for first in range(3):
        for second in range(3):
            own = angles[0, torch.arange(2), torch.tensor([first, second])]
            found = density_matrix(circuit, genotype([pool[first], pool[second]]), own)
            expected += mix[0, 0, first] * mix[0, 1, second] * found
    torch.testing.assert_close(mixed, expected)


def test_layers_act_on_the_edges_of_each_graph() -> None:
    graphs = [((0, 1), (1, 2)), ((0, 2),)]
    for name in ("rzz(*)", "rxx(*)", "ryy(*)"):
        circuit = SuperCircuit(3, ((Place((operation(name, 3),)),),), line(3))
        start = pure_start(3).expand(2, 2, 2, 2, 1)
        start = torch.stack([final_state([Gate("u", (q,), (0.3, q, 1.0)) for q in range(3)], 3)] * 2, dim=-1)
        start = start.reshape(2, 2, 2, 2, 1)
        angles = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
        none = torch.zeros(1, dtype=torch.int64)
        states, _ = evolution(circuit, graphs).sampled(start, angles, none, none[:, None])
        for case, edges in enumerate(graphs):
            gates = [Gate("u", (q,), (0.3, q, 1.0)) for q in range(3)]
            gates += [Gate(name[:3], edge, (0.7,)) for edge in edges]
            torch.testing.assert_close(states[..., case, 0].flatten(), final_state(gates, 3))


def test_channels_keep_the_trace_and_do_what_their_names_say() -> None:
    for name in CHANNELS:
        circuit = SuperCircuit(1, ((Gate("u", (0,), (0.4, 0.2, 0.1)),),), (), noise(moment=[f"{name}(0.3)"]))
        whole = superoperator_of(circuit, genotype([]), torch.zeros(0, 1))
        for basis in torch.eye(4, dtype=torch.complex128):
            torch.testing.assert_close((whole @ basis).reshape(2, 2).trace(), basis.reshape(2, 2).trace())
    one = [Gate("x", (0,))]
    populations = {
        "bit_flip": (0.3, 0.7),
        "phase_flip": (0, 1),
        "depolarizing": (0.15, 0.85),
        "amplitude_damping": (0.3, 0.7),
    }
    for name, expected in populations.items():
        circuit = SuperCircuit(1, (tuple(one),), (), noise(gate=[f"{name}(0.3)"]))
        found = density_matrix(circuit, genotype([]), torch.zeros(0, 1)).diagonal().real
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
