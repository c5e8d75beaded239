"""Targets with names: states, unitaries, graphs, and the Fourier transform with holes and noise.

Source of the last: the experiment on error mitigation of DQAS (arXiv 2010.08561).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from models.circuits.channels import Noise, noise
from models.circuits.circuit import Coupling, Gate, Hole, check_qubits
from models.circuits.gates import GATES
from models.errors import InvalidInput

# Two triangles, joined corner by corner: 6 nodes, 9 edges, maximum cut 7.
PRISM: tuple[Coupling, ...] = ((0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (0, 3), (1, 4), (2, 5))

QFT_NOISE: Noise = noise(idle=["bit_flip(0.2)"], moment=["bit_flip(0.02)"])
MOST_DRAWS = 10_000


def _ghz(qubits: int) -> Tensor:
    state = torch.zeros(2**qubits, dtype=torch.complex128)
    state[0] = state[-1] = math.sqrt(0.5)
    return state


def _w(qubits: int) -> Tensor:
    state = torch.zeros(2**qubits, dtype=torch.complex128)
    state[2 ** torch.arange(qubits)] = 1 / math.sqrt(qubits)
    return state


def qft(qubits: int) -> Tensor:
    """The quantum Fourier transform: exp(2 pi i row column / 2**qubits) / sqrt(2**qubits)."""
    index = torch.arange(2**qubits, dtype=torch.float64)
    angle = 2 * math.pi * torch.outer(index, index) / 2**qubits
    return torch.polar(torch.full_like(angle, 2 ** (-qubits / 2)), angle)


def _gate(name: str) -> Callable[[int], Tensor]:
    kind = GATES[name]

    def matrix(qubits: int) -> Tensor:
        if qubits != kind.num_qubits:
            raise InvalidInput(
                f"the gate {name} has {kind.num_qubits} qubits, but {qubits} are set; set {kind.num_qubits}"
            )
        return kind.matrix(torch.zeros(0, dtype=torch.float64))

    return matrix


STATES: Mapping[str, tuple[Callable[[int], Tensor], int, int]] = {  # with the fewest and the most qubits
    "ghz": (_ghz, 2, 10),
    "w": (_w, 2, 10),
    "bell": (_ghz, 2, 2),
}
UNITARIES: Mapping[str, Callable[[int], Tensor]] = {
    "qft": qft,
    "toffoli": _gate("ccx"),
    "swap": _gate("swap"),
}


def named_state(name: str, qubits: int) -> Tensor:
    """The amplitudes (2**qubits,) of ghz, w or bell, complex128. Raises InvalidInput."""
    if name not in STATES:
        raise InvalidInput(f"the state {name!r} is unknown; choose one of {', '.join(STATES)}")
    state, fewest, most = STATES[name]
    if not fewest <= qubits <= most:
        raise InvalidInput(f"the state {name} is defined for {fewest} to {most} qubits, not for {qubits}")
    return state(qubits)


def named_unitary(name: str, qubits: int) -> Tensor:
    """The matrix (2**qubits, 2**qubits) of qft, toffoli or swap, complex128. Raises InvalidInput."""
    if name not in UNITARIES:
        raise InvalidInput(f"the unitary {name!r} is unknown; choose one of {', '.join(UNITARIES)}")
    check_qubits(qubits)
    return UNITARIES[name](qubits)


def qft_holes(qubits: int) -> list[list[Gate | Hole]]:
    """The Fourier transform without its final swaps, and a hole wherever a qubit idles between the gates.

    A moment has one rotation at most, and each Hadamard gate is in the moment of the next but one rotation where it
    can be. For three qubits that is H2 | CP12 | CP02, H1 | CP01 | H0 with holes at (q0, q1), (q0), (), (q2), (q1, q2).
    """
    gates: list[list[Gate]] = [[Gate("h", (qubits - 1,))]]
    for target in range(qubits - 1, 0, -1):
        for control in range(target - 1, -1, -1):
            angle = math.pi / 2 ** (target - control)
            gates.append([Gate("cp", (control, target), (angle,))])
        last = gates[-1]
        if target > 1:
            last.append(Gate("h", (target - 1,)))
        else:
            gates.append([Gate("h", (0,))])
    return [_with_holes(moment, qubits) for moment in gates]


def _with_holes(moment: list[Gate], qubits: int) -> list[Gate | Hole]:
    busy = {qubit for gate in moment for qubit in gate.qubits}
    return [*moment, *(Hole(qubit) for qubit in range(qubits) if qubit not in busy)]


def random_regular(nodes: int, degree: int, generator: torch.Generator) -> tuple[Coupling, ...]:
    """The edges of a random regular graph, uniformly: stubs are paired at random until no edge is doubled or a loop.

    Raises InvalidInput when there is no such graph.
    """
    check_qubits(nodes)
    if not 0 < degree < nodes or nodes * degree % 2:
        raise InvalidInput(
            f"no graph of {nodes} nodes has degree {degree}; set a degree below the nodes, and one of the two even"
        )
    stubs = torch.arange(nodes).repeat_interleave(degree)
    for _ in range(MOST_DRAWS):
        pairs = stubs[torch.randperm(len(stubs), generator=generator)].reshape(-1, 2).sort(dim=1).values
        edges = {(int(a), int(b)) for a, b in pairs.tolist()}
        if len(edges) == len(pairs) and all(a != b for a, b in edges):
            return tuple(sorted(edges))
    raise InvalidInput(f"no graph of {nodes} nodes and degree {degree} was drawn; set a smaller degree")


def haar_states(count: int, qubits: int, generator: torch.Generator) -> Tensor:
    """Random states (count, 2**qubits), complex128, uniformly distributed: normalized Gaussian vectors."""
    parts = torch.randn(count, 2**qubits, 2, generator=generator, dtype=torch.float64)
    states = torch.view_as_complex(parts)
    return states / torch.linalg.vector_norm(states, dim=1, keepdim=True)
