"""What a super-circuit does to a batch of states, circuit by circuit or mixed.

``sampled`` evolves circuits in each of which every place has one candidate. Circuits that begin alike are evolved
once up to where they part. ``mixed`` evolves density matrices or superoperators in which every place applies all
candidates, weighted by a mix; a measure that is linear in the density matrix is then its exact expectation over
circuits drawn from the mix (RhoDARTS, arXiv 2506.03697).

Axes: A angle sets, P places, O candidates, L angles, M circuits, U different circuits, C cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.circuit import Coupling, Gate, SuperCircuit
from models.circuits.factors import Compiler, Factor


@dataclass(frozen=True)
class Choice:
    """A place: the factors of each of its candidates."""

    place: int
    candidates: tuple[tuple[Factor, ...], ...]


Step = Factor | Choice


@dataclass(frozen=True)
class Evolution:
    """A super-circuit, ready to run. ``density`` says that its registers hold density matrices or superoperators."""

    steps: tuple[Step, ...]
    density: bool

    def sampled(
        self, start: Tensor, angles_APOL: Tensor, sets_M: Tensor, choices_MP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The states (2, ..., 2, C, U) of the different circuits, and of each of the M circuits its index among these.

        ``start`` is (2, ..., 2, C, 1). Circuit m has the angles of set ``sets_M[m]`` and at place p the candidate
        ``choices_MP[m, p]``. Differentiable in the angles.
        """
        several = len(angles_APOL) > 1
        owners = sets_M if several else torch.zeros_like(sets_M)  # of each circuit, its prefix
        sets = torch.arange(len(angles_APOL), device=owners.device)  # of each prefix, its angles
        states = start.expand(*start.shape[:-1], len(angles_APOL))
        for step in self.steps:
            if not isinstance(step, Choice):
                states = step(states, (angles_APOL.new_zeros(1, 0), None))
                continue
            codes = choices_MP[:, step.place] * len(sets) + owners
            different, owners = torch.unique(codes, return_inverse=True)
            sources, counts = (
                different % len(sets),
                torch.bincount(different // len(sets), minlength=len(step.candidates)),
            )
            parts = []
            for op, source in enumerate(sources.split(counts.tolist())):
                if len(source):
                    part = states.index_select(-1, source)
                    angles = angles_APOL[:, step.place, op], sets[source] if several else None
                    parts.append(_applied(step.candidates[op], part, angles))
            states, sets = torch.cat(parts, dim=-1), sets[sources]
        return states, owners

    def mixed(self, start: Tensor, angles_MPOL: Tensor, mix_MPO: Tensor) -> Tensor:
        """The mixed states (2, ..., 2, C, M) of M mixes, each with its angles. Differentiable in both.

        Needs a ``density`` evolution.
        """
        assert self.density
        sets = torch.arange(len(mix_MPO), device=mix_MPO.device) if len(mix_MPO) > 1 else None
        states = start.expand(*start.shape[:-1], len(mix_MPO))
        for step in self.steps:
            if not isinstance(step, Choice):
                states = step(states, (angles_MPOL.new_zeros(1, 0), None))
                continue
            images = [
                _applied(candidate, states, (angles_MPOL[:, step.place, op], sets))
                * mix_MPO[:, step.place, op]
                for op, candidate in enumerate(step.candidates)
            ]
            states = torch.stack(images).sum(dim=0)
        return states


def _applied(factors: Sequence[Factor], states: Tensor, angles: tuple[Tensor, Tensor | None]) -> Tensor:
    for factor in factors:
        states = factor(states, angles)
    return states


def evolution(
    circuit: SuperCircuit,
    couplings: Sequence[Sequence[Coupling]] | None = None,
    *,
    density: bool | None = None,
) -> Evolution:
    """Prepares a circuit. ``couplings`` are those of each case, if they are not the circuit's.

    Noise makes it a density evolution; ``density=True`` makes it one without noise.
    """
    noise, density = circuit.noise, bool(density or circuit.noise)
    compiler = Compiler(circuit.qubits, couplings or [circuit.couplings], density, noise.gate)
    steps: list[Step] = []
    everywhere = frozenset(range(circuit.qubits))

    def idle(untouched: frozenset[int]) -> list[Factor]:
        return [compiler.channels(noise.idle, qubit) for qubit in sorted(untouched)] if noise.idle else []

    place = 0
    for moment in circuit.moments:
        steps += idle(everywhere.difference(*(circuit.covered(element) for element in moment)))
        for element in moment:
            if isinstance(element, Gate):
                steps += compiler.gate(element)
                continue
            covered = circuit.covered(element)
            candidates = tuple(
                (
                    *idle(covered - op.touched(circuit.qubits, circuit.couplings)),
                    *compiler.operation(op),
                )
                for op in element.candidates
            )
            steps.append(Choice(place, candidates))
            place += 1
        if noise.moment:
            steps += [compiler.channels(noise.moment, qubit) for qubit in range(circuit.qubits)]
    return Evolution(tuple(steps), density)


def pure_start(qubits: int, initial: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    """The basis state ``initial`` as (2, ..., 2, 1, 1)."""
    state = torch.zeros(2**qubits, dtype=dtype)
    state[initial] = 1.0
    return state.reshape((2,) * qubits + (1, 1))
