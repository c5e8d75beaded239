"""Targets against brute force, known energies, and one-line refusals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from models.circuits.circuit import Gate, Hole, genotype, names
from models.circuits.hydrogen import HARTREE_FOCK, hydrogen
from models.circuits.named import PRISM, QFT_NOISE, haar_states, named_state, named_unitary, qft, qft_holes
from models.circuits.notation import sequence, with_holes
from models.circuits.objective import CircuitObjective
from models.circuits.pauli import PauliSum
from models.circuits.scores import per_case
from models.circuits.simulate import unitary_of
from models.circuits.targets import (
    maxcut_target,
    mitigation_target,
    state_target,
    unitary_target,
    vqe_target,
)
from models.errors import InvalidInput
from models.training.seeds import generator

NO_ANGLES = torch.zeros(0, 1)
GATES = ("id", "x", "t", "s")


def by_kraus(moments: list[list[Gate]], inputs: Tensor, qubits: int) -> Tensor:
    """The mean fidelity over input states of a noisy circuit, from whole matrices and sums over Kraus operators."""

    def on(name: str, qubit: int) -> Tensor:
        return unitary_of([Gate(name, (qubit,))], qubits)

    def flipped(rho: Tensor, qubit: int, probability: float) -> Tensor:
        flip = on("x", qubit)
        return (1 - probability) * rho + probability * flip @ rho @ flip.mH

    ideal = unitary_of([g for moment in qft_holes(qubits) for g in moment if isinstance(g, Gate)], qubits)
    rho = inputs[:, :, None] * inputs.conj()[:, None, :]
    for moment in moments:
        busy = {qubit for gate in moment for qubit in gate.qubits}
        for qubit in set(range(qubits)) - busy:
            rho = flipped(rho, qubit, 0.2)
        whole = unitary_of(moment, qubits)
        rho = whole @ rho @ whole.mH
        for qubit in range(qubits):
            rho = flipped(rho, qubit, 0.02)
    wanted = inputs @ ideal.T
    return torch.einsum("kr,krc,kc->k", wanted.conj(), rho, wanted).real


def design(qubits: int) -> Tensor:
    """States whose mean fidelity is that over all states: those of mutually unbiased bases, for one or two qubits."""
    if qubits == 1:
        root = math.sqrt(0.5)
        rows = [[1, 0], [0, 1], [root, root], [root, -root], [root, 1j * root], [root, -1j * root]]
        return torch.tensor(rows, dtype=torch.complex128)
    bases = [[[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]]
    bases += [[[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]]]
    bases += [[[1, -1, -1j, -1j], [1, -1, 1j, 1j], [1, 1, 1j, -1j], [1, 1, -1j, 1j]]]
    bases += [[[1, -1j, -1j, -1], [1, -1j, 1j, 1], [1, 1j, 1j, -1], [1, 1j, -1j, 1]]]
    bases += [[[1, -1j, -1, -1j], [1, -1j, 1, 1j], [1, 1j, -1, 1j], [1, 1j, 1, -1j]]]
    return torch.tensor(bases, dtype=torch.complex128).flatten(0, 1) / 2


def test_the_exhaustive_table_of_a_small_mitigation() -> None:
    circuit = with_holes(2, qft_holes(2), GATES, QFT_NOISE)
    target = mitigation_target(circuit)
    choices = list(itertools.product(range(len(GATES)), repeat=len(circuit.places)))
    none = torch.zeros(len(choices), dtype=torch.int64)
    angles = torch.zeros(1, len(circuit.places), len(GATES), 1, dtype=torch.float64)
    table = CircuitObjective(circuit, target).circuits(angles, none, torch.tensor(choices))[0]
    inputs = design(2)
    torch.testing.assert_close(torch.linalg.vector_norm(inputs, dim=1), torch.ones(20, dtype=torch.float64))
    for choice, value in zip(choices, table.tolist(), strict=True):
        filling = iter(choice)
        moments = []
        for moment in qft_holes(2):
            gates = [(e, GATES[next(filling)]) if isinstance(e, Hole) else (e, "") for e in moment]
            filled = [
                Gate(name, (e.qubit,)) if isinstance(e, Hole) else e for e, name in gates if name != "id"
            ]
            moments.append(filled)
        assert value == pytest.approx(float(by_kraus(moments, inputs, 2).mean()), abs=1e-12)
    assert table.max() > table[0] == pytest.approx(float(table[choices.index((0,) * len(circuit.places))]))


def test_the_bare_and_the_best_fourier_transform_of_three_qubits() -> None:
    circuit = with_holes(3, qft_holes(3), ("x", "y", "z", "id", "t", "s"), QFT_NOISE)
    target = mitigation_target(circuit)
    bare = genotype(["id"] * 6)
    best = genotype(f"{name}({qubit})" for name, qubit in zip("xtxztz", (0, 1, 0, 2, 1, 2), strict=True))
    assert names(best)[0] == "x(0)"
    angles = torch.zeros(6, 1)
    assert float(per_case(target, circuit, bare, angles)) == pytest.approx(0.3237, abs=5e-5)
    assert float(per_case(target, circuit, best, angles)) == pytest.approx(0.5969, abs=5e-5)
    inputs = haar_states(400, 3, generator(0, "inputs"))
    fidelities = per_case(target, circuit, best, angles, inputs)
    assert fidelities.shape == (400,)
    error = float(fidelities.std()) / 20
    assert abs(float(fidelities.mean()) - 0.5969) < 3 * error


def test_the_fidelity_of_a_unitary_is_the_mean_over_states() -> None:
    target = unitary_target(named_unitary("swap", 2))
    circuit = sequence(2, ["cx(0,1)", "ry(0)", "rz(1)"], 3)
    found, angles = genotype(["cx(0,1)", "ry(0)", "rz(1)"]), torch.tensor([[0.0], [0.4], [1.1]]).double()
    mean = float(per_case(target, circuit, found, angles))
    assert mean == pytest.approx(float(per_case(target, circuit, found, angles, design(2)).mean()))
    exchanged = sequence(2, ["cx(0,1)", "cx(1,0)"], 3)
    swap = genotype(["cx(0,1)", "cx(1,0)", "cx(0,1)"])
    assert float(per_case(target, exchanged, swap, torch.zeros(3, 1))) == pytest.approx(1.0)


def test_cuts_are_counted_edge_by_edge() -> None:
    triangle = ((0, 1), (1, 2), (0, 2))
    target = maxcut_target([PRISM, triangle], 6)
    circuit = sequence(6, ["x(0)+x(4)", "h(*)"], 1, PRISM)
    cuts = per_case(target, circuit, genotype(["x(0)+x(4)"]), torch.zeros(1, 1))
    cut = [sum((a in (0, 4)) != (b in (0, 4)) for a, b in edges) for edges in (PRISM, triangle)]
    best = [
        max(sum((s >> a ^ s >> b) & 1 for a, b in edges) for s in range(64)) for edges in (PRISM, triangle)
    ]
    assert best == [7, 2]
    torch.testing.assert_close(cuts, torch.tensor([c / b for c, b in zip(cut, best, strict=True)]).double())
    uniform = per_case(target, circuit, genotype(["h(*)"]), torch.zeros(1, 1))
    torch.testing.assert_close(uniform, torch.tensor([4.5 / 7, 1.5 / 2]).double())


@pytest.mark.parametrize(
    # Energies in hartree of Hartree-Fock and of full configuration interaction in STO-3G, known to these digits
    ("length", "hartree_fock", "ground"),
    [(0.735, -1.11699900, -1.13730604), (0.7408481, -1.1167, -1.1373)],
)
def test_the_energies_of_hydrogen(length: float, hartree_fock: float, ground: float) -> None:
    molecule = hydrogen(length)
    digits = 1e-8 if length == 0.735 else 1e-4
    assert molecule.ground_energy() == pytest.approx(ground, abs=digits)
    assert float(molecule.matrix()[HARTREE_FOCK, HARTREE_FOCK].real) == pytest.approx(
        hartree_fock, abs=digits
    )
    target = vqe_target(molecule, HARTREE_FOCK)
    circuit = sequence(4, ["id", "x(0)"], 1)
    energy = float(per_case(target, circuit, genotype(["id"]), torch.zeros(1, 1)))
    assert energy == pytest.approx(hartree_fock, abs=digits)


def test_hydrogen_is_that_of_pennylane() -> None:
    qml = pytest.importorskip("pennylane", reason="pennylane is not installed")
    coordinates = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5 / 0.529177210903]]).numpy()
    molecule = qml.qchem.Molecule(["H", "H"], coordinates)
    theirs, wires = qml.qchem.molecular_hamiltonian(molecule, method="dhf")
    matrix = torch.from_numpy(qml.matrix(theirs, wire_order=range(wires)))
    ground = float(torch.linalg.eigvalsh(matrix)[0])
    assert hydrogen(1.5).ground_energy() == pytest.approx(ground, abs=1e-6)


def test_two_atoms_far_apart_have_twice_the_energy_of_one() -> None:
    """That of one atom in this basis is -0.46658 hartree (Szabo and Ostlund)."""
    assert hydrogen(10.0).ground_energy() == pytest.approx(2 * -0.46658, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: state_target(torch.tensor([1.0, 1.0])), "the state has norm 1.41421"),
        (lambda: state_target(torch.tensor([1.0, math.nan])), "not finite"),
        (lambda: state_target(torch.ones(3)), r"the shape \(3,\); it needs 2\^n entries"),
        (lambda: unitary_target(torch.ones(2, 2)), "the matrix is not unitary"),
        (lambda: unitary_target(torch.ones(2)), r"needs 2\^n x 2\^n"),
        (lambda: PauliSum({"XZ": 1j}), "not Hermitian"),  # pyright: ignore[reportArgumentType]
        (lambda: PauliSum({"XA": 1.0}), "'XA' is not 2 of the letters"),
        (lambda: PauliSum({"XX": math.inf}), "the coefficient of XX is inf"),
        (lambda: PauliSum({}), "no terms"),
        (lambda: maxcut_target([[(0, 3)]], 3), "graph 0: qubit 3 is out of range"),
        (lambda: maxcut_target([[]], 3), "graph 0 has no edges"),
        (lambda: vqe_target(PauliSum({"Z": 1.0}), 2), "initial state 2 is out of range"),
        (lambda: named_state("cat", 3), "'cat' is unknown; choose one of ghz, w, bell"),
        (lambda: named_unitary("toffoli", 2), "has 3 qubits, but 2 are set"),
        (lambda: hydrogen(0.0), "bond length is 0.0"),
    ],
)
def test_a_wrong_target_is_refused_in_one_line(make, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_named_unitaries_are_what_their_names_say() -> None:
    fourier = qft(2)
    torch.testing.assert_close(fourier @ fourier.mH, torch.eye(4, dtype=torch.complex128))
    assert fourier[1, 1] == pytest.approx(0.5j)
    assert named_unitary("toffoli", 3)[7, 3] == 1 and named_unitary("toffoli", 3)[3, 7] == 1
