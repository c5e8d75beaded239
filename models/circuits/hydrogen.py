"""The Hamiltonian of the hydrogen molecule in the minimal basis STO-3G, from closed forms.

Each atom has one orbital, a sum of three normalized s Gaussians exp(-a r^2) that approximates a Slater function of
exponent 1.24 (Hehre, Stewart, Pople 1969). The integrals are those of Szabo and Ostlund, Modern Quantum Chemistry,
appendix A. Symmetry gives the molecular orbitals g and u, the sum and the difference of the atomic ones. Spin orbitals
are g up, g down, u up, u down, on qubits 0 to 3, by the mapping of Jordan and Wigner.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.circuits.pauli import PauliSum
from models.errors import InvalidInput

BOHR = 0.529177210903  # angstrom
QUBITS = 4
HARTREE_FOCK = 0b0011  # the basis state in which both electrons are in g
_GAUSSIANS = (
    (3.42525091, 0.15432897),
    (0.62391373, 0.53532814),
    (0.16885540, 0.44463454),
)  # exponent, weight
_NEGLIGIBLE = 1e-12


def hydrogen(bond_length: float) -> PauliSum:
    """The Hamiltonian, in hartree and with the repulsion of the nuclei. ``bond_length`` is in angstrom.

    Raises InvalidInput unless the length is between 0.1 and 10.
    """
    if not 0.1 <= bond_length <= 10:
        raise InvalidInput(f"the bond length is {bond_length} angstrom; set one from 0.1 to 10")
    distance = bond_length / BOHR
    one, two = _orbital_integrals(distance)
    return _pauli_sum(_matrix(one, two) + torch.eye(2**QUBITS, dtype=torch.complex128) / distance)


def _boys(x: float) -> float:
    return 1.0 if x < 1e-12 else 0.5 * math.sqrt(math.pi / x) * math.erf(math.sqrt(x))


def _overlap(exponents: Sequence[float], positions: Sequence[float]) -> float:
    """Of two normalized s Gaussians at positions on a line."""
    (a, b), (first, second) = exponents, positions
    normalized = (4 * a * b / math.pi**2) ** 0.75
    return normalized * (math.pi / (a + b)) ** 1.5 * math.exp(-a * b / (a + b) * (first - second) ** 2)


def _one_electron(exponents: Sequence[float], positions: Sequence[float], nuclei: Sequence[float]) -> float:
    """Kinetic energy and attraction by the nuclei."""
    (a, b), (first, second) = exponents, positions
    reduced, overlap = a * b / (a + b), _overlap(exponents, positions)
    kinetic = reduced * (3 - 2 * reduced * (first - second) ** 2) * overlap
    middle = (a * first + b * second) / (a + b)
    attraction = sum(_boys((a + b) * (middle - nucleus) ** 2) for nucleus in nuclei)
    return kinetic - 2 * math.sqrt((a + b) / math.pi) * overlap * attraction


def _two_electrons(exponents: Sequence[float], positions: Sequence[float]) -> float:
    """(ab|cd), the repulsion of the charge distributions ab and cd."""
    (a, b, c, d), (at_a, at_b, at_c, at_d) = exponents, positions
    p, q = a + b, c + d
    between = (a * at_a + b * at_b) / p - (c * at_c + d * at_d) / q
    charges = _overlap((a, b), (at_a, at_b)) * _overlap((c, d), (at_c, at_d))
    return charges * 2 * math.sqrt(p * q / (math.pi * (p + q))) * _boys(p * q / (p + q) * between**2)


def _contracted(function: Callable[..., float], count: int) -> float:
    """The integral over ``count`` atomic orbitals, from that over Gaussians."""
    total = 0.0
    for gaussians in itertools.product(_GAUSSIANS, repeat=count):
        total += math.prod(weight for _, weight in gaussians) * function(
            [exponent for exponent, _ in gaussians]
        )
    return total


def _orbital_integrals(distance: float) -> tuple[Tensor, Tensor]:
    """Of g and u: the one-electron integrals (2, 2), and the two-electron integrals (ij|kl) (2, 2, 2, 2)."""
    nuclei = (0.0, distance)
    overlap, one = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    two = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    for i, j in itertools.product(range(2), repeat=2):
        at = (nuclei[i], nuclei[j])
        overlap[i, j] = _contracted(lambda e, at=at: _overlap(e, at), 2)
        one[i, j] = _contracted(lambda e, at=at: _one_electron(e, at, nuclei), 2)
    for index in itertools.product(range(2), repeat=4):
        positions = [nuclei[atom] for atom in index]
        two[index] = _contracted(lambda e, positions=positions: _two_electrons(e, positions), 4)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    lengths = (signs @ overlap * signs).sum(dim=1).sqrt()
    orbitals = signs / lengths[:, None]  # (g and u, atoms)
    one = orbitals @ one @ orbitals.T
    return one, torch.einsum("pi,qj,rk,sl,ijkl->pqrs", orbitals, orbitals, orbitals, orbitals, two)


def _matrix(one: Tensor, two: Tensor) -> Tensor:
    """The electrons' Hamiltonian (16, 16): the sum of h_pq p^ q and of (pq|rs) p^ r^ s q / 2, with spins as in pairs."""
    lowering = [_lowering(orbital) for orbital in range(QUBITS)]
    raising = [matrix.mH for matrix in lowering]
    total = torch.zeros(2**QUBITS, 2**QUBITS, dtype=torch.complex128)
    for (p, q), spin in itertools.product(itertools.product(range(2), repeat=2), range(2)):
        total += one[p, q] * raising[2 * p + spin] @ lowering[2 * q + spin]
    for (p, q, r, s), spin, other in itertools.product(
        itertools.product(range(2), repeat=4), range(2), range(2)
    ):
        created = raising[2 * p + spin] @ raising[2 * r + other]
        total += 0.5 * two[p, q, r, s] * created @ lowering[2 * s + other] @ lowering[2 * q + spin]
    return total


def _lowering(orbital: int) -> Tensor:
    """Takes an electron out of a spin orbital; its sign counts the electrons in the orbitals before."""
    z, step = torch.diag(torch.tensor([1.0, -1.0])), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    total = torch.ones(1, 1)
    for qubit in range(QUBITS):
        factor = step if qubit == orbital else z if qubit < orbital else torch.eye(2)
        total = torch.kron(factor, total)
    return total.to(torch.complex128)


def _pauli_sum(matrix: Tensor) -> PauliSum:
    """A Hermitian matrix as a sum of Pauli strings: the coefficient of P is tr(P matrix) / 16."""
    terms = {}
    for letters in itertools.product("IXYZ", repeat=QUBITS):
        string = "".join(letters)
        coefficient = float((PauliSum({string: 1.0}).matrix() @ matrix).trace().real) / 2**QUBITS
        if abs(coefficient) > _NEGLIGIBLE:
            terms[string] = coefficient
    return PauliSum(terms)
