"""How fast circuits are simulated, forward and backward, on one thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import _machine
from models.circuits.circuit import Operation
from models.circuits.notation import line, sequence
from models.circuits.targets import state_target
from models.training.seeds import generator

CIRCUITS, PLACES, QUBITS = 25_600, 4, 3
BATCHES, REGISTERS = (128, 1024, 8192), range(2, 11)
REPETITIONS, OTHERS = 5, 256  # measurements of which the fastest counts; circuits that PennyLane simulates


def pool_of(qubits: int) -> list[str]:
    """A rotation and a Hadamard gate on every qubit, and a controlled gate on every pair of neighbours."""
    return [
        *(f"ry({q})" for q in range(qubits)),
        *(f"h({q})" for q in range(qubits)),
        *(f"cx({a},{b})" for a, b in line(qubits)),
    ]


class Work:
    """Random circuits whose mean fidelity with a GHZ state is differentiated with respect to their angles.

    With ``own_angles``, no two circuits have an angle in common, so that none can be simulated for another.
    """

    def __init__(self, qubits: int, circuits: int, *, own_angles: bool):
        pool, source = pool_of(qubits), generator(0, "benchmark")
        self.circuit = sequence(qubits, pool, PLACES)
        state = torch.zeros(2**qubits)
        state[0] = state[-1] = 0.5**0.5
        self.target = state_target(state)
        self.evolution = self.target.evolution(self.circuit)
        sets = circuits if own_angles else 1
        self.angles = torch.randn(sets, PLACES, len(pool), 1, generator=source).requires_grad_()
        self.sets = torch.arange(circuits) % sets
        self.choices = torch.randint(len(pool), (circuits, PLACES), generator=source)

    def once(self) -> tuple[float, float]:
        """The seconds that it takes, and the mean fidelity."""
        self.angles.grad = None
        started = time.perf_counter()
        states, index = self.evolution.sampled(
            self.target.start(False, torch.float32), self.angles, self.sets, self.choices
        )
        fidelity = self.target.values(states, False)[:, index].mean()
        fidelity.backward()
        return time.perf_counter() - started, float(fidelity.detach())

    def fastest(self, repetitions: int = REPETITIONS) -> float:
        return min(self.once()[0] for _ in range(repetitions))

    def operations(self, circuit: int) -> Sequence[Operation]:
        candidates = self.circuit.places[0].candidates
        return [candidates[index] for index in self.choices[circuit].tolist()]


def pennylane(work: Work, circuits: int) -> tuple[float, float]:
    """The seconds that PennyLane takes for the first circuits of the same work, and their mean fidelity."""
    import pennylane as qml

    qubits = work.circuit.qubits
    device = qml.device("default.qubit", wires=qubits)
    gates = {"ry": qml.RY, "h": lambda wires: qml.Hadamard(wires), "cx": qml.CNOT}
    ideal = torch.zeros(2**qubits, dtype=torch.complex128)
    ideal[0] = ideal[-1] = 0.5**0.5
    angles = work.angles.detach().double().requires_grad_()

    @qml.qnode(device, interface="torch", diff_method="backprop")
    def fidelity(operations: Sequence[Operation], angles_PL: torch.Tensor) -> Any:
        for place, operation in enumerate(operations):
            (part,) = operation.parts
            assert part.qubits is not None
            wires = [qubits - 1 - qubit for qubit in part.qubits]
            values = [angles_PL[place, 0]] if operation.num_angles else []
            gates[part.gate](*values, wires=wires)
        return qml.expval(qml.Projector([0] * qubits, wires=range(qubits))), qml.state()

    started, total = time.perf_counter(), torch.zeros(())
    for circuit in range(circuits):
        chosen = work.choices[circuit]
        of_circuit = angles[int(work.sets[circuit]), torch.arange(PLACES), chosen]
        _, state = fidelity(work.operations(circuit), of_circuit)
        overlap = (ideal.conj() * state).sum()
        total = total + overlap.real.square() + overlap.imag.square()
    (total / circuits).backward()
    return time.perf_counter() - started, float(total.detach()) / circuits


def measured() -> dict[str, Any]:
    """All of it: the seconds of the main case, per circuit and qubit, and of PennyLane."""
    shared = Work(QUBITS, CIRCUITS, own_angles=False).fastest()
    work = Work(QUBITS, CIRCUITS, own_angles=True)
    own = work.fastest()
    same = Work(QUBITS, OTHERS, own_angles=True)
    ours, fidelity = min(same.once() for _ in range(REPETITIONS))
    theirs, their_fidelity = pennylane(same, OTHERS)
    assert abs(fidelity - their_fidelity) < 1e-5, "both do the same work"
    table = {
        qubits: [
            Work(qubits, batch, own_angles=True).fastest(3) if batch * 2**qubits <= 2**20 else None
            for batch in BATCHES
        ]
        for qubits in REGISTERS
    }
    return {
        "shared_angles": shared,
        "own_angles": own,
        "circuits": OTHERS,
        "ours": ours,
        "pennylane": theirs,
        "table": table,
        "machine": f"{_machine.hardware(torch.device('cpu'))}, {_machine.versions()}, {_machine.today()}, load {_machine.load()}",
    }
