"""The gates: their matrices as differentiable functions of their angles.

The matrix of a gate on qubits (a, b, ...) has the bit of ``a`` as the least significant one of its indices, as in
qiskit. Controls come first. Names and angles are those of OpenQASM 3's stdgates.inc, to which ``rxx``, ``ryy``
and ``rzz`` are added: exp(-i angle / 2 PP) for two equal Pauli matrices P.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Matrix = Sequence[Sequence[complex]]


@dataclass(frozen=True)
class Kind:
    """What a gate's name stands for.

    matrix  angles (..., num_angles) -> (..., 2**num_qubits, 2**num_qubits), complex, in the precision of the angles
    phases  of a diagonal gate: its diagonal is exp(i angle phases), with angle 1 where the gate has none
    """

    num_qubits: int
    num_angles: int
    matrix: Callable[[Tensor], Tensor]
    phases: tuple[float, ...] | None = None


def complex_of(dtype: torch.dtype) -> torch.dtype:
    """The complex type whose parts have the real type ``dtype``."""
    return {torch.float32: torch.complex64, torch.float64: torch.complex128}[dtype]


def _fixed(rows: Matrix, phases: tuple[float, ...] | None = None) -> Kind:
    size = len(rows)

    def matrix(angles: Tensor) -> Tensor:
        value = torch.tensor(rows, dtype=torch.complex128, device=angles.device)
        return value.to(complex_of(angles.dtype)).expand(*angles.shape[:-1], size, size)

    return Kind(size.bit_length() - 1, 0, matrix, phases)


def _diagonal(phases: tuple[float, ...], num_angles: int) -> Kind:
    def matrix(angles: Tensor) -> Tensor:
        exponents = torch.tensor(phases, dtype=angles.dtype, device=angles.device)
        exponents = exponents * angles if num_angles else exponents.expand(*angles.shape[:-1], len(phases))
        return torch.diag_embed(torch.polar(torch.ones_like(exponents), exponents))

    return Kind(len(phases).bit_length() - 1, num_angles, matrix, phases)


def _rotation(generator: Matrix) -> Kind:
    """exp(-i angle / 2 G) = cos(angle / 2) - i sin(angle / 2) G, because G is its own inverse."""
    size = len(generator)

    def matrix(angles: Tensor) -> Tensor:
        half = angles[..., 0, None, None] / 2
        kind = complex_of(angles.dtype)
        turned = torch.tensor(generator, dtype=torch.complex128, device=angles.device).to(kind)
        identity = torch.eye(size, dtype=kind, device=angles.device)
        return torch.cos(half) * identity - 1j * torch.sin(half) * turned

    return Kind(size.bit_length() - 1, 1, matrix)


def _controlled(kind: Kind) -> Kind:
    """The gate on the second qubit where the first one is 1."""

    def matrix(angles: Tensor) -> Tensor:
        inner = kind.matrix(angles)
        size = 2 * inner.shape[-1]
        outer = torch.eye(size, dtype=inner.dtype, device=inner.device).repeat(*inner.shape[:-2], 1, 1)
        outer[..., 1::2, 1::2] = inner
        return outer

    phases = kind.phases and tuple(part for phase in kind.phases for part in (0.0, phase))
    return Kind(kind.num_qubits + 1, kind.num_angles, matrix, phases)


def _u(angles: Tensor) -> Tensor:
    theta, phi, lambda_ = angles.unbind(-1)
    cos, sin = torch.cos(theta / 2), torch.sin(theta / 2)

    def turned(size: Tensor, angle: Tensor) -> Tensor:
        return size * torch.polar(torch.ones_like(angle), angle)

    zero = torch.zeros_like(theta)
    upper = torch.stack([turned(cos, zero), -turned(sin, lambda_)], dim=-1)
    lower = torch.stack([turned(sin, phi), turned(cos, phi + lambda_)], dim=-1)
    return torch.stack([upper, lower], dim=-2)


def _exchanging(size: int, one: int, other: int) -> Matrix:
    """The identity, but with two basis states exchanged."""
    image = list(range(size))
    image[one], image[other] = other, one
    return [[complex(image[row] == column) for column in range(size)] for row in range(size)]


def _product(one: Matrix, other: Matrix) -> Matrix:
    """The Kronecker product."""
    return [[a * b for a in left for b in right] for left in one for right in other]


_X, _Y = ((0, 1), (1, 0)), ((0, -1j), (1j, 0))
_ROOT = math.sqrt(0.5)
_H = _fixed(((_ROOT, _ROOT), (_ROOT, -_ROOT)))
_RX, _RY = _rotation(_X), _rotation(_Y)
_RZ, _P = _diagonal((-0.5, 0.5), 1), _diagonal((0.0, 1.0), 1)
_Z = _diagonal((0.0, math.pi), 0)

GATES: Mapping[str, Kind] = {
    "id": _diagonal((0.0, 0.0), 0),
    "x": _fixed(_X),
    "y": _fixed(_Y),
    "z": _Z,
    "h": _H,
    "s": _diagonal((0.0, math.pi / 2), 0),
    "sdg": _diagonal((0.0, -math.pi / 2), 0),
    "t": _diagonal((0.0, math.pi / 4), 0),
    "tdg": _diagonal((0.0, -math.pi / 4), 0),
    "sx": _fixed(((0.5 + 0.5j, 0.5 - 0.5j), (0.5 - 0.5j, 0.5 + 0.5j))),
    "rx": _RX,
    "ry": _RY,
    "rz": _RZ,
    "p": _P,
    "u": Kind(1, 3, _u),
    "cx": _fixed(_exchanging(4, 1, 3)),
    "cy": _controlled(_fixed(_Y)),
    "cz": _controlled(_Z),
    "ch": _controlled(_H),
    "swap": _fixed(_exchanging(4, 1, 2)),
    "cp": _controlled(_P),
    "crx": _controlled(_RX),
    "cry": _controlled(_RY),
    "crz": _controlled(_RZ),
    "rxx": _rotation(_product(_X, _X)),
    "ryy": _rotation(_product(_Y, _Y)),
    "rzz": _diagonal((-0.5, 0.5, 0.5, -0.5), 1),
    "ccx": _fixed(_exchanging(8, 3, 7)),
    "cswap": _fixed(_exchanging(8, 3, 5)),
}
