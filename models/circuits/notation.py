"""How operations are written in params.yaml, and circuits made of such texts.

ry(0)  cx(0,1)  u(2)    a gate on qubits; its angles are free
rx[pi/3](0)             a fixed angle: a number, pi, or a multiple of pi such as -3*pi/4
rx(*)  h(*)             the gate on every qubit, with the same angle on all
rzz(*)  cz(*)           a two-qubit gate on every coupling
rzz(*)+rx(*)            a block: parts from left to right, each with its own angles
id                      nothing
x  rx[pi/3]             without qubits: on the qubit of a hole
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from models.circuits.channels import NOISELESS, Noise
from models.circuits.circuit import (
    Coupling,
    Gate,
    Hole,
    Operation,
    Part,
    Place,
    SuperCircuit,
    check_on,
    check_qubits,
)
from models.circuits.gates import GATES
from models.errors import InvalidInput

_PART = re.compile(r"(?P<gate>[a-z]+)(\[(?P<angles>[^\]]*)\])?(\((?P<qubits>[^)]*)\))?")
_ANGLE = re.compile(r"(?P<sign>-)?(?:(?P<factor>[\d.]+)\*)?pi(?:/(?P<divisor>[\d.]+))?")


def operation(text: str, qubits: int, hole: int | None = None) -> Operation:
    """The operation of a text. Gates without qubits act on that of the ``hole``. Raises InvalidInput."""
    name = "".join(text.split())
    if name == "id":
        return Operation(name, ())
    parts = tuple(_part(part, name, qubits, hole) for part in name.split("+"))
    if hole is not None:
        name = f"{name}({hole})"
    return Operation(name, tuple(part for part in parts if part.gate != "id"))


def pool(texts: Sequence[str], qubits: int, hole: int | None = None) -> tuple[Operation, ...]:
    """The operations of these texts. Raises InvalidInput, also for fewer than two or for equal ones."""
    operations = tuple(operation(text, qubits, hole) for text in texts)
    known = [op.name for op in operations]
    if len(known) < 2:
        raise InvalidInput(f"the pool has {len(known)} operation(s); name two or more")
    for name in known:
        if known.count(name) > 1:
            raise InvalidInput(f"the pool has {name} twice; name it once")
    return operations


def line(qubits: int) -> tuple[Coupling, ...]:
    """The couplings of neighbours on a line."""
    return tuple((qubit, qubit + 1) for qubit in range(qubits - 1))


def sequence(
    qubits: int,
    texts: Sequence[str],
    places: int,
    couplings: Sequence[Coupling] | None = None,
    noise: Noise = NOISELESS,
) -> SuperCircuit:
    """A circuit of ``places`` places in a row, all with the same pool. Raises InvalidInput."""
    check_qubits(qubits)
    if places < 1:
        raise InvalidInput(f"{places} places; set 1 or more")
    place = Place(pool(texts, qubits))
    pairs = line(qubits) if couplings is None else tuple((one, other) for one, other in couplings)
    return SuperCircuit(qubits, tuple((place,) for _ in range(places)), pairs, noise)


def with_holes(
    qubits: int,
    moments: Sequence[Sequence[Gate | Hole]],
    texts: Sequence[str],
    noise: Noise = NOISELESS,
) -> SuperCircuit:
    """A given circuit whose holes take operations of the pool, which names no qubits. Raises InvalidInput."""
    check_qubits(qubits)
    if not any(isinstance(element, Hole) for moment in moments for element in moment):
        raise InvalidInput("the circuit has no holes; leave at least one")

    def filled(element: Gate | Hole) -> Gate | Place:
        if isinstance(element, Gate):
            return element
        check_on((element.qubit,), qubits, "hole")
        return Place(pool(texts, qubits, element.qubit))

    return SuperCircuit(qubits, tuple(tuple(map(filled, moment)) for moment in moments), line(qubits), noise)


def moments_of(elements: Sequence[Gate | Hole], qubits: int) -> list[list[Gate | Hole]]:
    """Elements in moments, each as early as the qubits that it acts on allow."""
    free = [0] * qubits
    moments: list[list[Gate | Hole]] = []
    for element in elements:
        where = element.qubits if isinstance(element, Gate) else (element.qubit,)
        check_on(where, qubits, element.name if isinstance(element, Gate) else "hole")
        first = max(free[qubit] for qubit in where)
        if first == len(moments):
            moments.append([])
        moments[first].append(element)
        for qubit in where:
            free[qubit] = first + 1
    return moments


def _part(text: str, name: str, qubits: int, hole: int | None) -> Part:
    found = _PART.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"operation {name!r}: {text!r} is not understood; write it as ry(0), rx(*) or cx(0,1)"
        )
    gate = found["gate"]
    if gate not in GATES:
        raise InvalidInput(f"operation {name!r}: gate {gate!r} is unknown; choose one of {', '.join(GATES)}")
    angles = (
        None if found["angles"] is None else tuple(_angle(one, name) for one in found["angles"].split(","))
    )
    if angles is not None and len(angles) != GATES[gate].num_angles:
        raise InvalidInput(
            f"operation {name!r}: {gate} has {GATES[gate].num_angles} angle(s), but {len(angles)} given"
        )
    return Part(gate, _qubits(found["qubits"], gate, name, qubits, hole), angles)


def _qubits(text: str | None, gate: str, name: str, qubits: int, hole: int | None) -> tuple[int, ...] | None:
    needed = GATES[gate].num_qubits
    if (text is None) != (hole is not None):
        remedy = "write it with its qubits, such as ry(0)" if text is None else "leave its qubits out"
        raise InvalidInput(f"operation {name!r}: {remedy}")
    if text is None:
        if needed != 1:
            raise InvalidInput(f"operation {name!r}: {gate} acts on {needed} qubits; a hole has one")
        assert hole is not None
        return (hole,)
    if text == "*":
        if needed > 2:
            raise InvalidInput(f"operation {name!r}: {gate} acts on {needed} qubits; name them")
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise InvalidInput(f"operation {name!r}: the qubits are {text!r}; write numbers or *")
    where = tuple(int(number) for number in text.split(","))
    if len(where) != needed:
        raise InvalidInput(f"operation {name!r}: {gate} acts on {needed} qubit(s), but {len(where)} given")
    check_on(where, qubits, f"operation {name!r}")
    return where


def _angle(text: str, name: str) -> float:
    found = _ANGLE.fullmatch(text)
    try:
        if found is None:
            value = float(text)
        else:
            value = float(found["factor"] or 1) * math.pi / float(found["divisor"] or 1)
            value = -value if found["sign"] else value
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"operation {name!r}: the angle is {text!r}; write a number or a multiple of pi")
    return value
