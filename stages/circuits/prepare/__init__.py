"""Writes the target of a circuit as arrays and texts that the later stages read. Checks all that the user has given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.circuits.channels import noise
from models.circuits.circuit import Coupling, genotype
from models.circuits.hydrogen import hydrogen
from models.circuits.named import PRISM, haar_states, named_state, named_unitary, qft_holes, random_regular
from models.circuits.notation import with_holes
from models.circuits.pauli import PauliSum
from models.circuits.scores import per_case
from models.circuits.targets import (
    cut_sizes,
    maxcut_target,
    mitigation_target,
    state_target,
    unitary_target,
    vqe_target,
)
from models.errors import InvalidInput
from models.training.seeds import generator
from stages.circuits.data import HAMILTONIAN, PROGRAM, STATES, TARGET, CircuitCard, write_program
from stages.circuits.params import FILE, DataParams, Params
from stages.circuits.prepare import sources
from stages.circuits.prepare.program import read_program
from stages.errors import UserError
from stages.plumbing.files import sha256_of

Known = dict[str, Any]  # fields of the card


def prepare(params: Params, folder: Path) -> CircuitCard:
    data = params.data
    if data.target == FILE and not Path(data.root).is_file():
        raise UserError(
            f"data.target is {FILE}, but data.root ({data.root}) is no file; name the file, or choose a target with a name"
        )
    try:
        known = _WRITERS[data.name](data, folder)
    except InvalidInput as error:
        where = data.root if data.target == FILE else f"data.target {data.target}"
        raise UserError(f"{where}: {error}") from None
    files = sorted(folder.iterdir())
    return CircuitCard(name=data.name, sha256=sha256_of(*files), kind=data.name, target=data.target, **known)


def _state(data: DataParams, folder: Path) -> Known:
    if data.target == FILE:
        amplitudes = sources.read_array(data.root, dimensions=1)
    else:
        amplitudes = named_state(data.target, data.qubits).numpy()
    target = state_target(torch.from_numpy(amplitudes))
    np.save(folder / TARGET, amplitudes)
    return {"qubits": target.qubits, "counts": _one()}


def _unitary(data: DataParams, folder: Path) -> Known:
    if data.target == FILE:
        matrix = sources.read_array(data.root, dimensions=2)
    else:
        qubits = {"toffoli": 3, "swap": 2}.get(data.target, data.qubits)
        matrix = named_unitary(data.target, qubits).numpy()
    target = unitary_target(torch.from_numpy(np.ascontiguousarray(matrix)))
    np.save(folder / TARGET, matrix)
    return {"qubits": target.qubits, "counts": _inputs(data, target.qubits, folder)}


def _mitigation(data: DataParams, folder: Path) -> Known:
    channels = {"idle": data.noise.idle, "moment": data.noise.moment, "gate": data.noise.gate}
    if not noise(**channels):
        raise InvalidInput("data.noise has no channels, so there is nothing to repair; name at least one")
    if data.target == FILE:
        program = read_program(Path(data.root))
        qubits, moments = program.qubits, program.moments
    else:
        qubits, moments = data.qubits, qft_holes(data.qubits)
    empty = with_holes(qubits, moments, ["id", "x"], noise(**channels))
    target = mitigation_target(empty)
    write_program(folder / PROGRAM, qubits, moments, channels)
    counts = _inputs(data, qubits, folder)
    nothing = genotype(["id"] * len(empty.places))
    angles = torch.zeros(len(empty.places), empty.num_angles)
    bare = per_case(
        target, empty, nothing, angles, torch.from_numpy(np.load(folder / STATES, allow_pickle=False))
    )
    return {"qubits": qubits, "counts": counts, "holes": len(empty.places), "reference": float(bare.mean())}


def _maxcut(data: DataParams, folder: Path) -> Known:
    if data.target == "random":
        source = generator(data.seed, "graphs")
        sizes = {"train": data.graphs, "val": data.graphs, "test": 1}
        drawn = {
            split: [random_regular(data.qubits, data.degree, source) for _ in range(count)]
            for split, count in sizes.items()
        }
        qubits = data.qubits
    else:
        edges: tuple[Coupling, ...] = PRISM
        if data.target == FILE:
            edges = sources.read_edges(data.root)
        qubits = 1 + max(node for edge in edges for node in edge)
        drawn = {split: [edges] for split in ("train", "val", "test")}
    for split, graphs in drawn.items():
        maxcut_target(graphs, qubits)
        np.save(folder / f"{split}_graphs.npy", np.asarray(graphs, dtype=np.int64))
    largest = float(cut_sizes(drawn["test"][0], qubits).max())
    return {
        "qubits": qubits,
        "counts": {split: len(graphs) for split, graphs in drawn.items()},
        "reference": largest,
    }


def _vqe(data: DataParams, folder: Path) -> Known:
    hamiltonian = (
        PauliSum(sources.read_paulis(data.root)) if data.target == FILE else hydrogen(data.bond_length)
    )
    vqe_target(hamiltonian, data.initial)
    text = json.dumps({string: float(value) for string, value in hamiltonian.terms.items()}, indent=1)
    (folder / HAMILTONIAN).write_text(text + "\n", encoding="utf-8")
    known = {"qubits": hamiltonian.qubits, "counts": _one(), "initial": data.initial}
    return {**known, "reference": hamiltonian.ground_energy()}


_WRITERS: Mapping[str, Callable[[DataParams, Path], Known]] = {
    "state": _state,
    "unitary": _unitary,
    "mitigation": _mitigation,
    "maxcut": _maxcut,
    "vqe": _vqe,
}


def _one() -> dict[str, int]:
    """One case in each split: the target itself."""
    return {"train": 1, "val": 1, "test": 1}


def _inputs(data: DataParams, qubits: int, folder: Path) -> dict[str, int]:
    """Draws the input states of the test. Training and validation use the exact mean over all input states."""
    states = haar_states(data.input_states, qubits, generator(data.seed, "input states"))
    np.save(folder / STATES, states.numpy())
    return {**_one(), "test": len(states)}
