"""The space of circuits, genotype.json, and how a found circuit is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from models.circuits import circuit as circuits
from models.circuits.circuit import FAMILY, GROUP, names
from models.circuits.notation import operation
from models.errors import InvalidInput
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from stages.circuits.data import found_circuit, read_card, super_circuit
from stages.contracts import Layout


def space(name: str, *, exclude_none: bool) -> SearchSpace:
    """The space that ``SearchParams.named_space`` describes, for the prepared target."""
    described = json.loads(name)
    return circuits.space(super_circuit(read_card(), described["operations"], described["places"]))


def genotype_json(genotype: Genotype) -> dict[str, Any]:
    return {"space": FAMILY, "qubits": read_card().qubits, "operations": list(names(genotype))}


def genotype_of(content: Mapping[str, Any]) -> Genotype:
    if content.get("space") != FAMILY:
        raise InvalidInput(f"genotype: space is {content.get('space')!r}; it should be {FAMILY}")
    qubits, operations = content.get("qubits"), content.get("operations")
    if not isinstance(qubits, int):
        raise InvalidInput(f"genotype: qubits is {qubits!r}; write a number")
    circuits.check_qubits(qubits)
    if (
        not isinstance(operations, list)
        or not operations
        or not all(isinstance(name, str) for name in operations)
    ):
        raise InvalidInput("genotype: operations should be a list of names such as ry(0), one per place")
    for name in operations:
        operation(name, qubits)
    return circuits.genotype(operations)


def layout(genotype: Genotype) -> Layout:
    places = len(names(genotype))
    return Layout(
        nodes=[str(place) for place in range(places + 1)],
        inputs=1,
        outputs=[places],
        titles={GROUP: "circuit"},
        rows=[f"place {place + 1}" for place in range(places)],
        drawings={GROUP: partial(_draw, genotype)},
    )


def _draw(genotype: Genotype, file: Path | BinaryIO, *, narrow: bool) -> None:
    from stages.circuits.drawing import draw, with_symbols  # slow to import

    card = read_card()
    circuit = found_circuit(card, genotype)
    draw(file, with_symbols(circuit, genotype, card.initial), narrow=narrow)
