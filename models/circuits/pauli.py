"""Hamiltonians as sums of Pauli strings, the leftmost letter of which belongs to the highest qubit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.circuit import check_qubits
from models.errors import InvalidInput


@dataclass(frozen=True)
class PauliSum:
    """Pauli string, such as "IXYZ" -> its real coefficient.

    Raises InvalidInput for no or unequal strings, other letters, or coefficients that are not finite real numbers.
    """

    terms: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InvalidInput("the Hamiltonian has no terms; give at least one Pauli string")
        check_qubits(self.qubits)
        for string, coefficient in self.terms.items():
            if len(string) != self.qubits or set(string) - set("IXYZ"):
                raise InvalidInput(
                    f"the Pauli string {string!r} is not {self.qubits} of the letters I, X, Y, Z"
                )
            if isinstance(coefficient, complex) and coefficient.imag != 0:
                raise InvalidInput(
                    f"the Hamiltonian is not Hermitian: {string} has {coefficient}; give real numbers"
                )
            if not math.isfinite(coefficient.real):
                raise InvalidInput(f"the coefficient of {string} is {coefficient}; give finite numbers")

    @property
    def qubits(self) -> int:
        return len(next(iter(self.terms)))

    def matrix(self) -> Tensor:
        """The Hamiltonian (2**qubits, 2**qubits), complex128."""
        size = 2**self.qubits
        total = torch.zeros(size, size, dtype=torch.complex128)
        column = torch.arange(size)
        for string, coefficient in self.terms.items():
            row, factor = column.clone(), torch.full((size,), complex(coefficient), dtype=torch.complex128)
            for qubit, letter in enumerate(reversed(string)):
                bit = (column >> qubit) & 1
                if letter in "XY":
                    row ^= 1 << qubit
                if letter == "Y":
                    factor = factor * (1j * (1 - 2 * bit))
                elif letter == "Z":
                    factor = factor * (1 - 2 * bit)
            total[row, column] += factor
        return total

    def ground_energy(self) -> float:
        """The smallest eigenvalue, by exact diagonalization."""
        return float(torch.linalg.eigvalsh(self.matrix())[0])
