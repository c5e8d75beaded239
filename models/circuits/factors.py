"""What operations are made of: factors, each of which multiplies a batch of states.

A register of N bits holds a state vector of N qubits, or a density matrix (or a superoperator's column) of N / 2
qubits whose bits are the column's and then the row's. So noise needs no simulator of its own: a gate U acts on the
bits of the row, its conjugate on those of the column, and a channel is a matrix on both.

A batch has the shape (2, ..., 2, C, M): one axis per bit, the highest first, then C cases (inputs, graphs) and M
circuits. Circuits come last, so that all arithmetic runs over contiguous memory, whichever qubit a gate acts on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.channels import Channel, superoperator
from models.circuits.circuit import Coupling, Gate, Operation, Part
from models.circuits.gates import GATES, Kind, complex_of
from models.errors import InvalidInput

# Angles of an operation: (angle sets, num_angles), and the set of each circuit (M,), or None if there is one set.
Angles = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Local:
    """A matrix on a few bits. ``free`` are the indices of its angles; ``conjugate`` says that it is conjugated."""

    bits: tuple[int, ...]
    matrix: Callable[[Tensor], Tensor]
    free: slice | None
    fixed: tuple[float, ...]
    nonzero: tuple[tuple[int, ...], ...]  # row -> columns
    conjugate: bool = False

    def __call__(self, states: Tensor, angles: Angles) -> Tensor:
        rows, bits = self._entries(states, angles), states.dim() - 2
        parts = _split(states, bits, self.bits)
        image = []
        for columns, entries in zip(self.nonzero, rows, strict=True):
            total = parts[columns[0]] * entries[0]
            for column, entry in zip(columns[1:], entries[1:], strict=True):
                total = total + parts[column] * entry
            image.append(total)
        return _joined(image, bits, self.bits)

    def _entries(self, states: Tensor, angles: Angles) -> list[list[Tensor]]:
        """The entries that are not zero, row by row: each a scalar, or (M,) where circuits have their own angles."""
        values, sets = angles
        if self.free is None:
            values, sets = torch.tensor(self.fixed, dtype=values.dtype, device=states.device)[None], None
        else:
            values = values[:, self.free]
        matrix = self.matrix(values)
        matrix = matrix.conj().resolve_conj() if self.conjugate else matrix

        def entry(row: int, column: int) -> Tensor:
            return matrix[0, row, column] if sets is None else matrix[:, row, column][sets]

        return [[entry(row, column) for column in columns] for row, columns in enumerate(self.nonzero)]


@dataclass(frozen=True)
class Diagonal:
    """exp(i angle phases): ``phases`` broadcast with (2, ..., 2, C, 1). Without a free angle, the angle is ``fixed``."""

    phases: Tensor  # float64
    free: int | None
    fixed: float = 1.0

    def __call__(self, states: Tensor, angles: Angles) -> Tensor:
        values, sets = angles
        phases = self.phases.to(values)
        if self.free is None:
            exponents = self.fixed * phases
        else:
            angle = values[:, self.free]
            exponents = phases * (angle[0] if sets is None else angle[sets])
        return states * torch.polar(torch.ones_like(exponents), exponents)


Factor = Local | Diagonal


@dataclass(frozen=True)
class Compiler:
    """Makes the factors of gates and operations for one kind of register.

    ``mixed`` registers hold density matrices or superoperators. ``couplings`` has the pairs of each case.
    """

    qubits: int
    couplings: Sequence[Sequence[Coupling]]
    mixed: bool
    gate_noise: tuple[Channel, ...] = ()

    @property
    def bits(self) -> int:
        return 2 * self.qubits if self.mixed else self.qubits

    def gate(self, gate: Gate) -> list[Factor]:
        return self.operation(Operation(gate.name, (Part(gate.name, gate.qubits, gate.angles),)))

    def operation(self, operation: Operation) -> list[Factor]:
        """The factors of an operation; its free angles are counted from 0."""
        factors: list[Factor] = []
        first = 0
        for part in operation.parts:
            factors += self._part(part, first)
            first += part.num_free
            if self.gate_noise:
                for where in self._places(part):
                    factors += [self.channels(self.gate_noise, qubit) for qubit in where]
        return factors

    def channels(self, channels: tuple[Channel, ...], qubit: int) -> Local:
        """Channels on one qubit of a mixed register."""
        assert self.mixed
        matrix = superoperator(channels)
        return _local(
            (qubit, qubit + self.qubits),
            lambda angles: matrix.to(angles.device, complex_of(angles.dtype)).expand(len(angles), 4, 4),
            matrix,
            None,
            (),
            False,
        )

    def _places(self, part: Part) -> Sequence[tuple[int, ...]]:
        if len(self.couplings) > 1 and part.qubits is None and GATES[part.gate].num_qubits == 2:
            raise InvalidInput(f"{part.gate}(*) with gate noise needs the same couplings in all cases")
        return part.places(self.qubits, self.couplings[0])

    def _part(self, part: Part, first: int) -> list[Factor]:
        kind = GATES[part.gate]
        if part.qubits is None and part.gate in _BASES and len(self.couplings) > 1:
            return self._rotated(part, first)
        if kind.phases is not None:
            return [self._diagonal(part, kind.phases, first)]
        if part.qubits is None and kind.num_qubits == 2 and len(self.couplings) > 1:
            raise InvalidInput(
                f"{part.gate}(*) needs the same couplings in all cases; use rzz(*), rxx(*) or ryy(*)"
            )
        factors: list[Factor] = []
        for where in part.places(self.qubits, self.couplings[0]):
            factors += self._dense(kind, where, part, first)
        return factors

    def _dense(self, kind: Kind, where: tuple[int, ...], part: Part, first: int) -> list[Factor]:
        free = slice(first, first + part.num_free) if part.num_free else None
        pattern = kind.matrix(torch.full((kind.num_angles,), 0.4, dtype=torch.float64))
        if not self.mixed:
            return [_local(where, kind.matrix, pattern, free, part.angles or (), False)]
        row = tuple(qubit + self.qubits for qubit in where)
        return [
            _local(row, kind.matrix, pattern, free, part.angles or (), False),
            _local(where, kind.matrix, pattern, free, part.angles or (), True),
        ]

    def _diagonal(self, part: Part, phases: tuple[float, ...], first: int) -> Diagonal:
        """One factor for all gates of the part, because diagonal gates commute."""
        cases = [self._phases(phases, part.places(self.qubits, pairs)) for pairs in self.couplings]
        same = part.qubits is not None or GATES[part.gate].num_qubits == 1
        total = (
            cases[0][..., None, None]
            if same
            else torch.stack([phase.expand((2,) * self.bits) for phase in cases], dim=-1)[..., None]
        )
        return Diagonal(total, first if part.num_free else None, part.angles[0] if part.angles else 1.0)

    def _phases(self, phases: tuple[float, ...], places: Sequence[tuple[int, ...]]) -> Tensor:
        """The sum of the phases of the gates at these places, broadcasting with (2, ..., 2)."""
        total = torch.zeros((1,) * self.bits, dtype=torch.float64)
        for where in places:
            if self.mixed:
                total = total + _spread(phases, [q + self.qubits for q in where], self.bits)
                total = total - _spread(phases, where, self.bits)
            else:
                total = total + _spread(phases, where, self.bits)
        return total

    def _rotated(self, part: Part, first: int) -> list[Factor]:
        """A layer of rxx or ryy as one of rzz in another basis, which may differ between cases."""
        into, back = _BASES[part.gate]
        change = [factor for gate in into for factor in self._part(Part(gate, None, ()), 0)]
        change_back = [factor for gate in back for factor in self._part(Part(gate, None, ()), 0)]
        return [*change, *self._part(Part("rzz", None, part.angles), first), *change_back]


# P = V^dagger Z V: the gates of V, and those of its inverse
_BASES = {"rxx": (("h",), ("h",)), "ryy": (("sdg", "h"), ("h", "s"))}


def _local(
    bits: tuple[int, ...],
    matrix: Callable[[Tensor], Tensor],
    pattern: Tensor,
    free: slice | None,
    fixed: tuple[float, ...],
    conjugate: bool,
) -> Local:
    nonzero = tuple(tuple(row.nonzero().flatten().tolist()) for row in pattern.abs() > 1e-12)
    return Local(bits, matrix, free, fixed, nonzero, conjugate)


def _spread(phases: Sequence[float], where: Sequence[int], bits: int) -> Tensor:
    """Phases of a gate, broadcasting with (2, ..., 2): the axes of other bits have length 1."""
    table = torch.tensor(phases, dtype=torch.float64).reshape((2,) * len(where))  # last-named bit first
    axes = [bits - 1 - bit for bit in reversed(where)]
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = [2 if axis in axes else 1 for axis in range(bits)]
    return table.permute(order).reshape(shape)


def _split(states: Tensor, bits: int, where: Sequence[int]) -> list[Tensor]:
    """The parts of the states in which the bits ``where`` have the values 0, 1, ..., as views."""
    parts = []
    for value in range(2 ** len(where)):
        index: list[slice | int] = [slice(None)] * bits
        for position, bit in enumerate(where):
            index[bits - 1 - bit] = (value >> position) & 1
        parts.append(states[tuple(index)])
    return parts


def _joined(parts: Sequence[Tensor], bits: int, where: Sequence[int]) -> Tensor:
    """The inverse of ``_split``."""
    stacked = torch.stack(list(parts))
    stacked = stacked.reshape((2,) * len(where) + stacked.shape[1:])
    return stacked.movedim(tuple(range(len(where))), tuple(bits - 1 - bit for bit in reversed(where)))
