"""Reads what the stage prepare has written: the target, its circuit, and its test cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.circuits.channels import NOISELESS, Noise, noise
from models.circuits.circuit import Coupling, Gate, Hole, Place, SuperCircuit, names
from models.circuits.notation import line, operation, sequence, with_holes
from models.circuits.pauli import PauliSum
from models.circuits.targets import (
    Target,
    maxcut_target,
    mitigation_target,
    state_target,
    unitary_target,
    vqe_target,
)
from models.errors import InvalidInput
from models.search.genotype import Genotype
from stages.circuits.params import FIDELITY
from stages.errors import UserError
from stages.plumbing.files import DATA, read_json, sha256_of
from stages.records import DataCard

TARGET, STATES, PROGRAM, HAMILTONIAN = "target.npy", "test_states.npy", "program.json", "hamiltonian.json"
Split = Literal["train", "val", "test"]
_TESTED = {  # the files that test cases are made of
    "state": (TARGET,),
    "unitary": (TARGET, STATES),
    "mitigation": (PROGRAM, STATES),
    "maxcut": ("test_graphs.npy",),
    "vqe": (HAMILTONIAN,),
}


class CircuitCard(DataCard):
    """data.json: what is asked of a circuit."""

    kind: Literal["state", "unitary", "mitigation", "maxcut", "vqe"]
    target: str  # such as ghz; "file" where the user has given it
    qubits: int
    initial: int = 0  # the basis state that circuits start from
    holes: int = 0
    # What there is to compare with: the exact ground energy, the largest cut, the fidelity of the circuit with empty holes.
    reference: float | None = None

    def schema_of_a_case(self) -> dict[str, Any]:
        return {"kind": self.kind, "qubits": self.qubits}

    def in_words(self) -> str:
        return f"{self.target} on {self.qubits} qubit{'s' if self.qubits != 1 else ''}"


def read_card() -> CircuitCard:
    """Reads data.json. Raises UserError when the file is missing or damaged."""
    return CircuitCard.read(DATA / "data.json", FIDELITY)


def read_array(name: str) -> NDArray[Any]:
    """An array that prepare has written. Raises UserError when the file is missing or damaged."""
    path = DATA / name
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}); delete {DATA} and run `dvc repro`") from None


def target_of(card: CircuitCard, split: Split) -> Target:
    """What is asked of a circuit in a split. The splits differ only where graphs are drawn at random."""
    match card.kind:
        case "state":
            return state_target(torch.from_numpy(read_array(TARGET)))
        case "unitary":
            return unitary_target(torch.from_numpy(read_array(TARGET)))
        case "mitigation":
            return mitigation_target(_holey(["id", "x"]))
        case "maxcut":
            return maxcut_target(graphs(split), card.qubits)
        case "vqe":
            return vqe_target(hamiltonian(), card.initial)


def inputs_of(card: CircuitCard) -> Tensor | None:
    """The input states (cases, 2**qubits) of the test; None where the target itself has its cases."""
    return torch.from_numpy(read_array(STATES)) if card.kind in ("unitary", "mitigation") else None


def cases_sha256(card: CircuitCard) -> str:
    """The hash of the test cases."""
    return sha256_of(*(DATA / name for name in _TESTED[card.kind]))


def graphs(split: Split) -> list[list[Coupling]]:
    """The graphs of a split."""
    return [[(int(a), int(b)) for a, b in edges] for edges in read_array(f"{split}_graphs.npy").tolist()]


def hamiltonian() -> PauliSum:
    """The Hamiltonian of a search for a low energy."""
    return PauliSum(read_json(DATA / HAMILTONIAN))


def super_circuit(card: CircuitCard, operations: Sequence[str], places: int | None) -> SuperCircuit:
    """The circuit whose places take these operations. Raises InvalidInput for operations that do not fit."""
    if card.kind == "mitigation":
        circuit = _holey(operations)
        for candidate in circuit.places[0].candidates:
            if len(candidate.parts) > 1:
                raise InvalidInput(
                    f"operation {candidate.name!r}: a hole takes one gate; leave the block out"
                )
        return circuit
    assert places is not None
    return sequence(card.qubits, operations, places, couplings(card))


def found_circuit(card: CircuitCard, genotype: Genotype) -> SuperCircuit:
    """The circuit whose places have one operation each, that of the genotype. Raises InvalidInput."""
    chosen = [Place((operation(name, card.qubits),)) for name in names(genotype)]
    if card.kind != "mitigation":
        return SuperCircuit(card.qubits, tuple((place,) for place in chosen), couplings(card))
    whole = _holey(["id", "x"])
    if len(chosen) != len(whole.places):
        raise UserError(
            f"the genotype has {len(chosen)} operations, but the circuit {len(whole.places)} holes; run `dvc repro`"
        )
    filling = iter(chosen)
    moments = tuple(
        tuple(next(filling) if isinstance(element, Place) else element for element in moment)
        for moment in whole.moments
    )
    return SuperCircuit(card.qubits, moments, whole.couplings, whole.noise)


def couplings(card: CircuitCard) -> tuple[Coupling, ...]:
    """The pairs of qubits that layers of two-qubit gates act on: the edges of the test graph, or neighbours on a line."""
    return tuple(graphs("test")[0]) if card.kind == "maxcut" else line(card.qubits)


def noise_of(card: CircuitCard) -> Noise:
    """The noise under which circuits are judged."""
    if card.kind != "mitigation":
        return NOISELESS
    return noise(**_program()["noise"])


def _holey(operations: Sequence[str]) -> SuperCircuit:
    """The user's circuit, whose holes take these operations."""
    content = _program()
    moments = [
        [
            Hole(qubits[0]) if name == "hole" else Gate(name, tuple(qubits), tuple(angles))
            for name, qubits, angles in moment
        ]
        for moment in content["moments"]
    ]
    return with_holes(content["qubits"], moments, operations, noise(**content["noise"]))


def _program() -> dict[str, Any]:
    path = DATA / PROGRAM
    content = read_json(path)
    if not isinstance(content, dict) or not {"qubits", "moments", "noise"} <= set(content):
        raise UserError(f"{path} is damaged; delete {DATA} and run `dvc repro`")
    return content


def write_program(
    path: Path, qubits: int, moments: Sequence[Sequence[Gate | Hole]], noise: dict[str, list[str]]
) -> None:
    """Writes the user's circuit with its noise, as ``super_circuit`` reads it."""

    def row(element: Gate | Hole) -> list[Any]:
        if isinstance(element, Hole):
            return ["hole", [element.qubit], []]
        return [element.name, list(element.qubits), list(element.angles)]

    content = {
        "qubits": qubits,
        "noise": noise,
        "moments": [[row(element) for element in moment] for moment in moments],
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
