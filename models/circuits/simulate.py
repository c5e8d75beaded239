"""What a bound circuit does: its final state, its unitary, and density matrices where there is noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.circuits.circuit import Gate, SuperCircuit
from models.circuits.evolution import evolution, pure_start
from models.search.genotype import Genotype


def final_state(gates: Sequence[Gate], qubits: int, initial: int = 0) -> Tensor:
    """The state (2**qubits,) after the gates, complex128, from the basis state ``initial``."""
    return _run(_bound(gates, qubits), pure_start(qubits, initial), False).reshape(2**qubits)


def unitary_of(gates: Sequence[Gate], qubits: int) -> Tensor:
    """The unitary (2**qubits, 2**qubits) of the gates, complex128."""
    size = 2**qubits
    columns = torch.eye(size, dtype=torch.complex128).reshape((2,) * qubits + (size, 1))
    return _run(_bound(gates, qubits), columns, False).reshape(size, size)


def density_matrix(circuit: SuperCircuit, genotype: Genotype, angles: Tensor, initial: int = 0) -> Tensor:
    """The density matrix (2**qubits, 2**qubits), complex128, of a found circuit with its noise.

    ``angles`` (places, num_angles) belong to the operations of the genotype.
    """
    start = pure_start(2 * circuit.qubits, initial * (2**circuit.qubits + 1))
    return _found(circuit, genotype, angles, start).reshape(2**circuit.qubits, -1)


def superoperator_of(circuit: SuperCircuit, genotype: Genotype, angles: Tensor) -> Tensor:
    """The superoperator (4**qubits, 4**qubits) of a found circuit with its noise, complex128.

    It maps the entries of a density matrix, row * 2**qubits + column.
    """
    size = 4**circuit.qubits
    start = torch.eye(size, dtype=torch.complex128).reshape((2,) * (2 * circuit.qubits) + (size, 1))
    return _found(circuit, genotype, angles, start).reshape(size, size)


def _found(circuit: SuperCircuit, genotype: Genotype, angles: Tensor, start: Tensor) -> Tensor:
    chosen = torch.tensor([circuit.chosen(genotype)])
    spread = angles.detach().double()[None, :, None].expand(1, -1, max(circuit.num_candidates, 1), -1)
    states, _ = evolution(circuit, density=True).sampled(
        start, spread, torch.zeros(1, dtype=torch.int64), chosen
    )
    return states


def _bound(gates: Sequence[Gate], qubits: int) -> SuperCircuit:
    return SuperCircuit(qubits, tuple((gate,) for gate in gates), ())


def _run(circuit: SuperCircuit, start: Tensor, density: bool) -> Tensor:
    no_angles = torch.zeros(1, 0, 1, 0, dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.int64)
    return evolution(circuit, density=density).sampled(start, no_angles, one, one[:, None])[0]
