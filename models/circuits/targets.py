"""What is asked of a circuit: a state, a unitary, the repair of a noisy circuit, large cuts, or a low energy.

A ``Target`` measures registers after an evolution. Every measure is linear in the density matrix, so that the
measure of a mixture of circuits is the mean of theirs.

Axes: C cases, M circuits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.circuit import Coupling, Gate, SuperCircuit, check_on, check_qubits
from models.circuits.evolution import Evolution, evolution, pure_start
from models.circuits.gates import complex_of
from models.circuits.observables import Diagonal, Hermitian, Observable, Overlap, Process
from models.circuits.pauli import PauliSum
from models.circuits.simulate import unitary_of
from models.errors import InvalidInput

NORM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Target:
    """The task of a circuit.

    metric    the name of the score: fidelity, cut_ratio or energy
    initial   the basis state that circuits start from
    graphs    the couplings of each case, or None where they are the circuit's
    scale     (C,) or scalar: score = scale * value of the observable
    worth     loss = offset - worth * value, the mean over the cases
    """

    qubits: int
    metric: str
    higher_is_better: bool
    observable: Observable
    worth: float
    offset: float = 0.0
    scale: Tensor | float = 1.0
    initial: int = 0
    graphs: tuple[tuple[Coupling, ...], ...] | None = None

    def evolution(self, circuit: SuperCircuit, *, density: bool | None = None) -> Evolution:
        """The evolution of a circuit for this target. Raises InvalidInput when it has another number of qubits."""
        if circuit.qubits != self.qubits:
            raise InvalidInput(
                f"the circuit has {circuit.qubits} qubits and its target {self.qubits}; give both the same"
            )
        return evolution(circuit, self.graphs, density=density)

    def start(self, density: bool, dtype: torch.dtype) -> Tensor:
        """What the register holds at first, (2, ..., 2, C, 1), in the complex type of the real ``dtype``."""
        kind, bits = complex_of(dtype), 2 * self.qubits if density else self.qubits
        if isinstance(self.observable, Process):
            return torch.eye(2**bits, dtype=kind).reshape((2,) * bits + (2**bits, 1))
        state = pure_start(bits, self.initial * (2**self.qubits + 1) if density else self.initial, kind)
        return state.expand(*state.shape[:-2], len(self.graphs or ((),)), 1)

    def values(self, states: Tensor, density: bool) -> Tensor:
        """The values (C, M) of registers (2, ..., 2, C, M)."""
        size = (2**self.qubits,) * (1 + density)
        states = states.reshape(*size, *states.shape[-2:])
        return self.observable.density(states) if density else self.observable.pure(states)

    def losses(self, values_CM: Tensor) -> Tensor:
        """The loss of each circuit (M,), from ``values``."""
        return self.offset - self.worth * values_CM.mean(dim=0)

    def scores(self, values_CM: Tensor) -> Tensor:
        """The scores (C, M), from ``values``."""
        scale = self.scale.to(values_CM)[:, None] if isinstance(self.scale, Tensor) else self.scale
        return scale * values_CM


def state_target(amplitudes: Tensor) -> Target:
    """Prepare a state (2**qubits,). Raises InvalidInput unless it is normalized."""
    qubits = _qubits_of(amplitudes, "the state", 1)
    norm = float(torch.linalg.vector_norm(amplitudes))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise InvalidInput(f"the state has norm {norm:.6g}; divide it by that, so that it is 1")
    state = amplitudes.to(torch.complex128)
    return Target(qubits, "fidelity", True, Overlap(state / norm), worth=1.0, offset=1.0)


def unitary_target(matrix: Tensor) -> Target:
    """Realize a unitary (2**qubits, 2**qubits) up to a phase. Raises InvalidInput unless it is one."""
    qubits = _qubits_of(matrix, "the matrix", 2)
    unitary = matrix.to(torch.complex128)
    error = float((unitary @ unitary.mH - torch.eye(len(unitary), dtype=unitary.dtype)).abs().max())
    if error > NORM_TOLERANCE:
        raise InvalidInput(
            f"the matrix is not unitary: it times its adjoint differs from the identity by {error:.2g}; give a unitary"
        )
    return Target(qubits, "fidelity", True, Process(unitary), worth=1.0, offset=1.0)


def mitigation_target(circuit: SuperCircuit) -> Target:
    """Fill the holes of a circuit so that, with its noise, it does what its gates do without holes and noise."""
    gates = [element for moment in circuit.moments for element in moment if isinstance(element, Gate)]
    return unitary_target(unitary_of(gates, circuit.qubits))


def maxcut_target(graphs: Sequence[Sequence[Coupling]], qubits: int) -> Target:
    """Cut as many edges as possible: the loss is minus the expected cut, the score its share of the maximum cut.

    Layers on couplings act on the edges of each graph. Raises InvalidInput for graphs without or with wrong edges.
    """
    check_qubits(qubits)
    if not graphs:
        raise InvalidInput("there are no graphs to cut; give at least one")
    for number, edges in enumerate(graphs):
        if not edges:
            raise InvalidInput(f"graph {number} has no edges; give at least one")
        for edge in edges:
            check_on(edge, qubits, f"graph {number}")
    cuts = torch.stack([cut_sizes(edges, qubits) for edges in graphs], dim=1)
    pairs = tuple(tuple((int(a), int(b)) for a, b in edges) for edges in graphs)
    scale = 1.0 / cuts.max(dim=0).values
    return Target(qubits, "cut_ratio", True, Diagonal(cuts), worth=1.0, scale=scale, graphs=pairs)


def vqe_target(hamiltonian: PauliSum, initial: int = 0) -> Target:
    """Find a low energy, starting from the basis state ``initial``. Raises InvalidInput when there is none."""
    qubits = hamiltonian.qubits
    if not 0 <= initial < 2**qubits:
        raise InvalidInput(f"the initial state {initial} is out of range; choose from 0 to {2**qubits - 1}")
    return Target(qubits, "energy", False, Hermitian(hamiltonian.matrix()), worth=-1.0, initial=initial)


def cut_sizes(edges: Sequence[Coupling], qubits: int) -> Tensor:
    """How many edges each of the 2**qubits divisions cuts, float64; bit q of its index is the side of node q."""
    index = torch.arange(2**qubits)
    return torch.stack([((index >> a) ^ (index >> b)) & 1 for a, b in edges]).sum(dim=0).double()


def _qubits_of(array: Tensor, what: str, dimensions: int) -> int:
    shape = tuple(array.shape)
    qubits = round(math.log2(shape[0])) if array.dim() == dimensions and shape[0] > 0 else 0
    if qubits < 1 or shape != (2**qubits,) * dimensions:
        wanted = " x ".join(["2^n"] * dimensions)
        raise InvalidInput(f"{what} has the shape {shape}; it needs {wanted} entries for n qubits")
    check_qubits(qubits)
    if not torch.isfinite(torch.view_as_real(array.to(torch.complex128))).all():
        raise InvalidInput(f"{what} has entries that are not finite numbers; remove NaN and infinity")
    return qubits
