"""Circuits, bound and searched.

A ``Gate`` is bound: name, qubits, angles. A ``SuperCircuit`` is a sequence of moments of gates and of places; each
place takes one of its candidates. An ordinary search has one place per moment with the same candidates in all of
them (DQAS, arXiv 2010.08561). Where a given circuit is to be repaired, its gates stay and its holes are the places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from models.circuits.channels import NOISELESS, Noise
from models.circuits.gates import GATES
from models.errors import InvalidInput
from models.search.genotype import Genotype
from models.search.spaces import Edge, SearchSpace

MOST_QUBITS = 10
FAMILY, GROUP = "circuits", "circuit"
Coupling = tuple[int, int]


@dataclass(frozen=True)
class Gate:
    """A gate whose angles (radians) are known. The qubits are in the order of ``models.circuits.gates``."""

    name: str
    qubits: tuple[int, ...]
    angles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Part:
    """One gate of an operation: on ``qubits``, or where these are None, on every qubit or on every coupling.

    ``angles`` are its fixed angles; None where they are free, and the same on all qubits.
    """

    gate: str
    qubits: tuple[int, ...] | None
    angles: tuple[float, ...] | None = None

    @property
    def num_free(self) -> int:
        return GATES[self.gate].num_angles if self.angles is None else 0

    def places(self, qubits: int, couplings: Sequence[Coupling]) -> Sequence[tuple[int, ...]]:
        """The qubits of each gate that the part consists of."""
        if self.qubits is not None:
            return [self.qubits]
        return [(qubit,) for qubit in range(qubits)] if GATES[self.gate].num_qubits == 1 else couplings


@dataclass(frozen=True)
class Operation:
    """A candidate: parts that are applied one after the other. Without parts, it does nothing."""

    name: str
    parts: tuple[Part, ...]

    @property
    def num_angles(self) -> int:
        return sum(part.num_free for part in self.parts)

    def gates(self, angles: Sequence[float], qubits: int, couplings: Sequence[Coupling]) -> list[Gate]:
        """The gates at these free angles, of which there may be more than the operation has."""
        gates, first = [], 0
        for part in self.parts:
            values = angles[first : first + part.num_free] if part.angles is None else part.angles
            first += part.num_free
            gates += [Gate(part.gate, where, tuple(values)) for where in part.places(qubits, couplings)]
        return gates

    def touched(self, qubits: int, couplings: Sequence[Coupling]) -> frozenset[int]:
        """The qubits that it acts on."""
        return frozenset(q for part in self.parts for where in part.places(qubits, couplings) for q in where)


@dataclass(frozen=True)
class Place:
    """Where one of the candidates is chosen."""

    candidates: tuple[Operation, ...]


@dataclass(frozen=True)
class Hole:
    """A place on one qubit of a given circuit, before its candidates are known."""

    qubit: int


@dataclass(frozen=True)
class SuperCircuit:
    """Moments of gates and places. Elements of the same moment act on different qubits.

    ``couplings`` are the pairs of qubits that two-qubit layers act on, unless the target has its own. Raises
    InvalidInput for a wrong number of qubits, gates out of range, elements that overlap, or places with different
    numbers of candidates.
    """

    qubits: int
    moments: tuple[tuple[Gate | Place, ...], ...]
    couplings: tuple[Coupling, ...]
    noise: Noise = field(default=NOISELESS)

    def __post_init__(self) -> None:
        check_qubits(self.qubits)
        for pair in self.couplings:
            check_on(pair, self.qubits, "couplings")
        for number, moment in enumerate(self.moments):
            seen: set[int] = set()
            for element in moment:
                if isinstance(element, Gate):
                    check_gate(element, self.qubits)
                covered = self.covered(element)
                if seen & covered:
                    raise InvalidInput(f"moment {number}: two elements act on qubit {min(seen & covered)}")
                seen |= covered
        if len({len(place.candidates) for place in self.places}) > 1:
            raise InvalidInput("all places of a circuit need the same number of candidates")

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The places, in the order of the rows of the mix."""
        return tuple(element for moment in self.moments for element in moment if isinstance(element, Place))

    @cached_property
    def num_candidates(self) -> int:
        return len(self.places[0].candidates) if self.places else 0

    @cached_property
    def num_angles(self) -> int:
        """The most free angles of any candidate, but 1 or more. All angles are (places, candidates, num_angles)."""
        return max(1, *(op.num_angles for place in self.places for op in place.candidates), 0)

    @cached_property
    def has_angles(self) -> bool:
        """Whether any candidate has a free angle."""
        return any(op.num_angles for place in self.places for op in place.candidates)

    def covered(self, element: Gate | Place) -> frozenset[int]:
        """The qubits that an element acts on, or may act on."""
        if isinstance(element, Gate):
            return frozenset(element.qubits)
        touched = (op.touched(self.qubits, self.couplings) for op in element.candidates)
        return frozenset().union(*touched)

    def chosen(self, genotype: Genotype) -> list[int]:
        """For each place, the index of the candidate that a genotype has there. Raises InvalidInput."""
        chosen = names(genotype)
        if len(chosen) != len(self.places):
            raise InvalidInput(
                f"genotype: {len(chosen)} operations, but the circuit has {len(self.places)} places; give one per place"
            )
        indices = []
        for number, (name, place) in enumerate(zip(chosen, self.places, strict=True)):
            known = [op.name for op in place.candidates]
            if name not in known:
                raise InvalidInput(f"genotype: place {number} has {name!r}; choose one of {', '.join(known)}")
            indices.append(known.index(name))
        return indices


def space(circuit: SuperCircuit) -> SearchSpace:
    """The search space of a circuit: a chain in which the edge from node i to i + 1 is place i."""
    edges = tuple(
        Edge(number, number + 1, tuple(op.name for op in place.candidates))
        for number, place in enumerate(circuit.places)
    )
    return SearchSpace(FAMILY, FAMILY, {GROUP: edges}, incoming=None, exclude_none=False)


def genotype(operations: Iterable[str]) -> Genotype:
    """The genotype with these operations, place by place."""
    edges = tuple((number, number + 1, name) for number, name in enumerate(operations))
    return Genotype(FAMILY, {GROUP: edges})


def names(genotype: Genotype) -> tuple[str, ...]:
    """The operations of a genotype, place by place."""
    return tuple(op for _, _, op in genotype.groups[GROUP])


def bound(circuit: SuperCircuit, genotype: Genotype, angles: Tensor) -> list[Gate]:
    """The gates of a found circuit, in order and without noise, at angles (places, num_angles)."""
    chosen, values = iter(circuit.chosen(genotype)), iter(angles.detach().double().tolist())
    gates: list[Gate] = []
    for moment in circuit.moments:
        for element in moment:
            if isinstance(element, Gate):
                gates.append(element)
            else:
                operation = element.candidates[next(chosen)]
                gates += operation.gates(next(values), circuit.qubits, circuit.couplings)
    return gates


def check_qubits(qubits: int) -> None:
    """Raises InvalidInput for a number of qubits that is not simulated."""
    if not 1 <= qubits <= MOST_QUBITS:
        raise InvalidInput(f"{qubits} qubits; set 1 to {MOST_QUBITS}")


def check_on(where: Sequence[int], qubits: int, what: str) -> None:
    """Raises InvalidInput unless these are different qubits of the register."""
    for qubit in where:
        if not 0 <= qubit < qubits:
            raise InvalidInput(f"{what}: qubit {qubit} is out of range; choose from 0 to {qubits - 1}")
    if len(set(where)) < len(where):
        raise InvalidInput(f"{what}: the same qubit twice in {tuple(where)}; name different ones")


def check_gate(gate: Gate, qubits: int) -> None:
    """Raises InvalidInput for an unknown gate, or one whose qubits or angles are wrong."""
    if gate.name not in GATES:
        raise InvalidInput(f"gate {gate.name!r} is unknown; choose one of {', '.join(GATES)}")
    kind = GATES[gate.name]
    if len(gate.qubits) != kind.num_qubits:
        raise InvalidInput(f"{gate.name}: {len(gate.qubits)} qubits given; it needs {kind.num_qubits}")
    if len(gate.angles) != kind.num_angles or not all(map(math.isfinite, gate.angles)):
        raise InvalidInput(f"{gate.name}: angles {gate.angles}; it needs {kind.num_angles} finite number(s)")
    check_on(gate.qubits, qubits, gate.name)
