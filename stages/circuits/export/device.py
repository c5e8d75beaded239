"""What a circuit costs on a device: Qiskit's generic backend, with the basis gates of the settings and qubits on a line."""

from __future__ import annotations

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.exceptions import QiskitError
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Statevector
from qiskit.transpiler import CouplingMap
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from stages.circuits.params import ExportParams
from stages.errors import UserError


def on_device(circuit: QuantumCircuit, config: ExportParams) -> dict[str, float]:
    """Depth and gates after transpiling, and the fidelity of the noisy state to the noiseless one, from all qubits 0.

    The backend draws the errors of its gates at random, by ``export.seed``, in the range of present devices.
    """
    qubits = circuit.num_qubits
    try:
        backend = GenericBackendV2(
            qubits,
            list(config.basis),
            coupling_map=CouplingMap.from_line(qubits),
            seed=config.seed,
            noise_info=True,
        )
        mapped = transpile(
            circuit, backend, optimization_level=config.optimization, seed_transpiler=config.seed
        )
    except QiskitError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"export.basis is {', '.join(config.basis)}, which Qiskit refuses ({reason}); add cx, rz, sx and x"
        ) from None
    return {**depth_and_gates(mapped, "transpiled_"), "noisy_fidelity": _fidelity(mapped, backend)}


def _fidelity(mapped: QuantumCircuit, backend: GenericBackendV2) -> float:
    """<ideal|rho|ideal> of the transpiled circuit."""
    ideal = np.asarray(Statevector(mapped).data)
    simulator = AerSimulator(method="density_matrix", noise_model=NoiseModel.from_backend(backend))
    noisy = mapped.copy()
    noisy.save_density_matrix()  # pyright: ignore[reportAttributeAccessIssue] - of Aer
    density = np.asarray(simulator.run(noisy).result().data()["density_matrix"])
    return float(np.real(ideal.conj() @ density @ ideal))


def depth_and_gates(circuit: QuantumCircuit, prefix: str = "") -> dict[str, float]:
    """The depth, the number of gates, and the number of gates on two or more qubits; barriers do not count."""
    gates = [instruction for instruction in circuit.data if instruction.operation.name != "barrier"]
    several = sum(len(instruction.qubits) > 1 for instruction in gates)
    depth = circuit.depth(lambda instruction: instruction.operation.name != "barrier")
    return {
        f"{prefix}depth": float(depth),
        f"{prefix}gates": float(len(gates)),
        f"{prefix}two_qubit_gates": float(several),
    }
