"""circuit.qasm of every target says what was trained, which Qiskit, the QDK and plain numpy confirm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.circuits.circuit import Gate, genotype
from stages.circuits.data import found_circuit, hamiltonian, read_card
from stages.circuits.params import METRICS, Params
from stages.circuits.prepare import prepare
from stages.plumbing.files import DATA, EXPORT, GENOTYPE, RETRAIN, write_json
from tests.stages.circuits import needs_packages, params_of

pytestmark = needs_packages


def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params, operations: list[str]) -> Any:
    """Prepares a target and exports a circuit of these operations with random angles."""
    from stages.circuits.architectures import genotype_json
    from stages.circuits.export import export

    monkeypatch.chdir(tmp_path)
    for folder in (DATA, GENOTYPE, RETRAIN, EXPORT):
        folder.mkdir(parents=True)
    prepare(params, DATA).write(DATA / "data.json", METRICS[params.data.name])
    chosen = genotype(operations)
    write_json(GENOTYPE / "genotype.json", genotype_json(chosen))
    circuit = found_circuit(read_card(), chosen)
    source = torch.Generator().manual_seed(3)
    angles = torch.randn(len(operations), circuit.num_angles, generator=source, dtype=torch.float64)
    save_file({"angles": angles}, RETRAIN / "weights.safetensors")
    return export(params, EXPORT)


def final_state_by_the_qdk(qubits: int) -> np.ndarray:
    from stages.circuits.export.reading import final_states

    return final_states(EXPORT / "circuit.qasm", qubits, [[]])[0]


def test_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = exported(tmp_path, monkeypatch, params_of(), ["ry(0)", "cx(0,2)", "u(1)", "rzz(*)+rx(*)"])
    state = final_state_by_the_qdk(3)
    assert result.evaluation.score == pytest.approx(abs(state[0] + state[7]) ** 2 / 2, abs=1e-12)
    assert result.record.params == result.evaluation.costs["params"] == 1 + 3 + 2
    assert 0 <= result.record.largest_difference <= 1e-8
    assert result.record.test_cases == 1 and result.record.latency_ms == {}
    assert {path.name for path in EXPORT.iterdir()} == {"circuit.qasm", "circuit.png"}


def test_a_unitary_is_compared_on_the_input_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit import QuantumCircuit
    from qiskit.quantum_info import Operator

    params = params_of(data__name="unitary", data__target="swap", data__input_states=5)
    result = exported(tmp_path, monkeypatch, params, ["cx(0,1)", "u(0)", "crx(1,0)"])
    _, u, rotation = load_file(RETRAIN / "weights.safetensors")["angles"].tolist()
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.u(u[0], u[1], u[2], 0)
    circuit.crx(rotation[0], 1, 0)
    inputs = np.load(DATA / "test_states.npy", allow_pickle=False)
    swapped = inputs[:, [0, 2, 1, 3]]
    expected = (
        np.abs(np.einsum("kd,kd->k", swapped.conj(), inputs @ np.asarray(Operator(circuit).data).T)) ** 2
    )
    np.testing.assert_allclose(result.evaluation.per_case, expected, atol=1e-9)


def test_phases_between_basis_states_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that only changes phases is noticed where all inputs count."""
    from stages.circuits.export import compared

    params = params_of(data__name="unitary", data__target="swap")
    exported(tmp_path, monkeypatch, params, ["cx(0,1)", "cx(1,0)"])
    gates = [Gate("cx", (0, 1)), Gate("cx", (1, 0))]
    assert compared(EXPORT / "circuit.qasm", gates, read_card()) < 1e-8
    assert compared(EXPORT / "circuit.qasm", [*gates, Gate("t", (0,))], read_card()) > 0.1


def test_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_of(data__name="maxcut", data__target="random", data__qubits=4, data__graphs=2)
    result = exported(tmp_path, monkeypatch, params, ["h(*)", "rzz(*)", "rx(*)"])
    ((edges),) = np.load(DATA / "test_graphs.npy", allow_pickle=False).tolist()
    assert read_card().counts == {"train": 2, "val": 2, "test": 1}
    probabilities = np.abs(final_state_by_the_qdk(4)) ** 2
    cuts = [sum((index >> a & 1) != (index >> b & 1) for a, b in edges) for index in range(16)]
    assert result.evaluation.score == pytest.approx(probabilities @ cuts / max(cuts), abs=1e-12)
    assert result.record.properties["two_qubit_gates"] == len(edges) == 6, (
        "one on each edge of the test graph"
    )


def test_an_energy_from_an_initial_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit.quantum_info import SparsePauliOp

    params = params_of(data__name="vqe", data__target="h2", data__initial=3)
    result = exported(tmp_path, monkeypatch, params, ["ry(2)", "cx(2,3)"])
    state = final_state_by_the_qdk(4)
    matrix = SparsePauliOp.from_list(list(hamiltonian().terms.items())).to_matrix()
    assert result.evaluation.score == pytest.approx(np.real(state.conj() @ matrix @ state), abs=1e-10)
    assert "x q[0];\nx q[1];\n" in (EXPORT / "circuit.qasm").read_text(), "the initial state"
    assert read_card().reference == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-9)


def test_a_repaired_circuit_keeps_its_moments_and_so_its_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of(data__name="mitigation", data__target="qft", search__places=None)
    result = exported(tmp_path, monkeypatch, params, ["x(0)", "id", "z(0)", "t(2)", "id", "y(2)"])
    assert result.evaluation.score < 0.9, "noise"
    assert result.record.largest_difference < 1e-8, "of the file's noisy fidelities, too"
    assert (EXPORT / "circuit.qasm").read_text().count("barrier") == 5


def test_the_device_has_the_basis_and_the_line_that_were_asked_for() -> None:
    from qiskit import QuantumCircuit, transpile
    from qiskit.transpiler import CouplingMap

    from stages.circuits.export.device import on_device
    from stages.errors import UserError

    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 2)
    circuit.barrier()
    found = on_device(circuit, params_of().export)
    mapped = transpile(
        circuit, basis_gates=["cx", "rz", "sx", "x"], coupling_map=CouplingMap.from_line(3), optimization_level=2,
        seed_transpiler=0,
    )  # fmt: skip
    assert found["transpiled_two_qubit_gates"] == mapped.count_ops()["cx"]
    assert 0.9 < found["noisy_fidelity"] < 1.0
    with pytest.raises(
        UserError, match=r"export.basis is foo, which Qiskit refuses \(.*\); add cx, rz, sx and x"
    ):
        on_device(circuit, params_of(export__basis=["foo"]).export)


def test_symbols_stand_for_every_free_angle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.circuits.architectures import with_symbols

    exported(tmp_path, monkeypatch, params_of(), ["ry(0)", "u(1)", "rx[pi/3](2)", "rzz(*)+rx(*)"])
    circuit = found_circuit(read_card(), genotype(["ry(0)", "u(1)", "rx[pi/3](2)", "rzz(*)+rx(*)"]))
    drawn = with_symbols(circuit, 5)
    assert {str(one) for one in drawn.parameters} == {"θ1", "θ2a", "θ2b", "θ2c", "θ4a", "θ4b"}
    assert drawn.count_ops()["x"] == 2, "the initial state 5 has two bits"
