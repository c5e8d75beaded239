"""The score of a found circuit, case by case: graphs or input states; one case for a state or a Hamiltonian."""

from __future__ import annotations

import torch
from torch import Tensor

from models.circuits.circuit import SuperCircuit
from models.circuits.objective import CircuitObjective
from models.circuits.observables import Process
from models.circuits.simulate import superoperator_of
from models.circuits.targets import Target
from models.circuits.tuning import decided
from models.search.genotype import Genotype


@torch.no_grad()
def per_case(
    target: Target, circuit: SuperCircuit, genotype: Genotype, angles: Tensor, inputs: Tensor | None = None
) -> Tensor:
    """The scores (cases,), float64, of a circuit with its noise, at ``angles`` (places, num_angles).

    ``inputs`` (cases, 2**qubits) are states whose images are compared with those that a unitary's or a mitigation's
    target would give: the fidelity of each. Without them, such a target has one case, the mean over all inputs.
    """
    if isinstance(target.observable, Process) and inputs is not None:
        return _fidelities(superoperator_of(circuit, genotype, angles), target.observable.unitary, inputs)
    own = decided(circuit, genotype)
    kept = angles.double()[None, :, None, : own.num_angles]
    one = torch.zeros(1, len(own.places), dtype=torch.int64)
    values = CircuitObjective(own, target).circuits(kept, torch.zeros(1, dtype=torch.int64), one)
    return target.scores(values)[:, 0]


def _fidelities(superoperator: Tensor, unitary: Tensor, inputs_KD: Tensor) -> Tensor:
    """<ideal|rho|ideal> of each input state, whose density matrix the superoperator maps to rho."""
    inputs = inputs_KD.to(torch.complex128)
    before = inputs[:, :, None] * inputs.conj()[:, None, :]
    after = (before.flatten(1) @ superoperator.T).reshape(before.shape)
    ideal = inputs @ unitary.T
    return torch.einsum("kr,krc,kc->k", ideal.conj(), after, ideal).real
