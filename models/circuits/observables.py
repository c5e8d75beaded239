"""What is measured of the states in a register: functions that are linear in the density matrix.

Each measures pure states (D, C, M) and density matrices (D, D, C, M), rows first; D is 2 to the number of qubits, C
are cases and M circuits. Values have the shape (C, M).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Observable(Protocol):
    """A measure of states."""

    def pure(self, states_DCM: Tensor) -> Tensor: ...

    def density(self, states_DDCM: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Overlap:
    """The fidelity with a state (D,): |<state|psi>|^2, or <state|rho|state>."""

    state: Tensor

    def pure(self, states_DCM: Tensor) -> Tensor:
        state = self.state.to(states_DCM)
        return _squared((state.conj()[:, None, None] * states_DCM).sum(dim=0))

    def density(self, states_DDCM: Tensor) -> Tensor:
        state = self.state.to(states_DDCM)
        weights = state.conj()[:, None] * state[None, :]
        return (weights[..., None, None] * states_DDCM).sum(dim=(0, 1)).real


@dataclass(frozen=True)
class Diagonal:
    """The expectation of an observable that is diagonal; ``values`` (D, C), real, may differ between cases."""

    values: Tensor

    def pure(self, states_DCM: Tensor) -> Tensor:
        return (self.values.to(states_DCM.real)[..., None] * _squared(states_DCM)).sum(dim=0)

    def density(self, states_DDCM: Tensor) -> Tensor:
        diagonal_CMD = states_DDCM.diagonal(dim1=0, dim2=1).real
        return (self.values.to(diagonal_CMD).T[:, None] * diagonal_CMD).sum(dim=-1)


@dataclass(frozen=True)
class Hermitian:
    """The expectation of a Hermitian matrix (D, D)."""

    matrix: Tensor

    def pure(self, states_DCM: Tensor) -> Tensor:
        image = (self.matrix.to(states_DCM) @ states_DCM.flatten(1)).reshape(states_DCM.shape)
        return (states_DCM.conj() * image).sum(dim=0).real

    def density(self, states_DDCM: Tensor) -> Tensor:
        matrix = self.matrix.to(states_DDCM)
        return (matrix.T[..., None, None] * states_DDCM).sum(dim=(0, 1)).real


@dataclass(frozen=True)
class Process:
    """The average fidelity over Haar-random inputs with a unitary (D, D).

    The register holds a matrix instead of a state: C is 1, and its cases are the columns of the circuit's unitary,
    (D, D, M), or of its superoperator, (D, D, D^2, M), whose rows and columns are a density matrix's row * D + column.
    F = (D F_pro + 1) / (D + 1), where F_pro = tr(S_U^dagger S) / D^2 is the process fidelity (Horodecki et al.,
    quant-ph/9807091; Nielsen, quant-ph/0205035).
    """

    unitary: Tensor

    def pure(self, states_DCM: Tensor) -> Tensor:
        size = len(self.unitary)
        trace = (self.unitary.to(states_DCM).conj()[..., None] * states_DCM).sum(dim=(0, 1), keepdim=True)
        return self._average(_squared(trace[0]) / size**2)

    def density(self, states_DDCM: Tensor) -> Tensor:
        size = len(self.unitary)
        unitary = self.unitary.to(states_DDCM)
        ideal = unitary[:, None, :, None] * unitary.conj()[None, :, None, :]
        ideal = ideal.reshape(size, size, size**2, 1)
        process = (ideal.conj() * states_DDCM).sum(dim=(0, 1, 2))[None].real / size**2
        return self._average(process)

    def _average(self, process: Tensor) -> Tensor:
        size = len(self.unitary)
        return (size * process + 1.0) / (size + 1.0)


def _squared(values: Tensor) -> Tensor:
    """The squared absolute values, without a square root in between."""
    return values.real.square() + values.imag.square()
