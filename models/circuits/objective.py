"""The loss of a super-circuit as the family's estimators see it: of sampled circuits, and at a mix.

There is one group of the mix per restart, and the restarts share nothing. Each has angles of its own, and its loss
moves only these and its own rows of the mix.

Axes: R restarts, N samples, P places, O candidates, L angles, C cases, M circuits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.circuit import GROUP, SuperCircuit, space
from models.circuits.evolution import Choice
from models.circuits.targets import Target
from models.errors import InvalidInput
from models.search.objective import Mix, Params, Pass, Samples, leaves
from models.search.spaces import SearchSpace

ANGLES = "angles"  # name of the only weight, (R, P, O, L)


def restarts_space(circuit: SuperCircuit, restarts: int) -> SearchSpace:
    """The space of a circuit with one group per restart."""
    one = space(circuit)
    groups = {f"restart {number}": one.groups[GROUP] for number in range(1, restarts + 1)}
    return SearchSpace(one.name, one.family, groups, one.incoming, one.exclude_none)


@dataclass(frozen=True)
class AngleNoise:
    """Gaussian noise on the angles, drawn anew for every sample."""

    deviation: float
    generator: torch.Generator

    def __call__(self, angles_RPOL: Tensor, samples: int) -> Tensor:
        """Angles (N * R, P, O, L), those of the first sample first."""
        shape = (samples, *angles_RPOL.shape)
        noise = torch.randn(shape, generator=self.generator).to(angles_RPOL)
        return (angles_RPOL + self.deviation * noise).flatten(0, 1)


class CircuitObjective:
    """The losses of a super-circuit's restarts with respect to a target.

    At a mix, a loss is the exact mean over the circuits that the mix can draw, computed on density matrices or
    superoperators. The output of a pass is the mean loss and the mean score of each restart, (2, R).
    """

    def __init__(self, circuit: SuperCircuit, target: Target, noise: AngleNoise | None = None):
        self.circuit, self.target, self.noise = circuit, target, noise
        self.drawn = target.evolution(circuit)
        self.mixture = target.evolution(circuit, density=True)

    def circuits(self, angles: Tensor, sets_M: Tensor, choices_MP: Tensor) -> Tensor:
        """The values (C, M) of circuits, each with a set of ``angles`` (A, P, O, L) and its choices."""
        if not self.circuit.has_angles:  # then equal choices make equal circuits, whatever the restart
            angles, sets_M = angles[:1].detach(), torch.zeros_like(sets_M)
        start = self.target.start(self.drawn.density, angles.dtype)
        states, index_M = self.drawn.sampled(start.to(angles.device), angles, sets_M, choices_MP)
        return self.target.values(states, self.drawn.density)[:, index_M]

    def mixed(self, angles_RPOL: Tensor, mix_RPO: Tensor) -> Tensor:
        """The values (C, R) at a mix of each restart."""
        start = self.target.start(True, angles_RPOL.dtype).to(angles_RPOL.device)
        return self.target.values(self.mixture.mixed(start, angles_RPOL, mix_RPO), True)

    def sampled(self, params: Params, chosen: Mapping[str, Tensor]) -> Samples:
        choices_NRP = torch.stack([rows.argmax(dim=-1) for rows in chosen.values()], dim=1)
        samples, restarts, _ = choices_NRP.shape
        angles = params[ANGLES]
        sets = torch.arange(samples * restarts, device=angles.device)
        if self.noise is None:
            sets = sets % restarts
        else:
            angles = self.noise(angles, samples)
        values = self.circuits(angles, sets, choices_NRP.flatten(0, 1))
        losses_NR = self.target.losses(values).reshape(samples, restarts)
        scores_R = self.target.scores(values.detach()).mean(dim=0).reshape(samples, restarts).mean(dim=0)
        return Samples(losses_NR, torch.stack([losses_NR.detach().mean(dim=0), scores_R]))

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        """The sum over the restarts, so that each restart's gradients are those of its own loss."""
        return self.target.losses(self.mixed(params[ANGLES], stacked(mix))).sum()

    def evaluated(self, params: Params, mix: Mix) -> Tensor:
        return self(params, mix)

    def in_full_precision(self) -> CircuitObjective:
        return self

    def thinned(self, every: int) -> CircuitObjective:
        return self

    @torch.no_grad()
    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        return torch.stack([self(params, mix) for mix in mixes])

    def joint_pass(self, params: Params, mix: Mix) -> tuple[Pass, dict[str, Tensor]]:
        params, mix = leaves(params), leaves(mix)
        values = self.mixed(params[ANGLES], stacked(mix))
        losses_R = self.target.losses(values)
        inputs = [*mix.values(), params[ANGLES]]
        *of_mix, of_angles = torch.autograd.grad(losses_R.sum(), inputs, materialize_grads=True)
        scores_R = self.target.scores(values.detach()).mean(dim=0)
        output = torch.stack([losses_R.detach(), scores_R])
        weights = Pass(losses_R.detach().mean(), output, {ANGLES: of_angles})
        return weights, dict(zip(mix, of_mix, strict=True))


def stacked(mix: Mix) -> Tensor:
    """The rows of all restarts (R, P, O)."""
    return torch.stack(list(mix.values()))


def check_memory(
    circuit: SuperCircuit, target: Target, samples: int, limit_bytes: float, *, density: bool = False
) -> None:
    """Raises InvalidInput when a step on so many circuits, restarts included, is estimated to exceed the limit.

    With ``density``, every place applies all candidates to density matrices (RhoDARTS).
    """
    needed = memory_estimate(circuit, target, samples, density=density)
    if needed > limit_bytes:
        raise InvalidInput(
            f"{circuit.qubits} qubits need about {needed / 2**30:.1f} GiB for {samples} circuits at a time, but the limit is"
            f" {limit_bytes / 2**30:.1f} GiB; lower the samples, the restarts, the places or the qubits"
        )


def memory_estimate(circuit: SuperCircuit, target: Target, samples: int, *, density: bool = False) -> float:
    """Bytes that the states of a step take, forward and backward: about two copies per gate."""
    evolved = target.evolution(circuit, density=density)
    start = target.start(evolved.density, torch.float32)
    copies = 4.0
    for step in evolved.steps:
        counts = [len(candidate) for candidate in step.candidates] if isinstance(step, Choice) else [1]
        copies += 2.0 * (sum(counts) if density else max(counts))
    return copies * samples * start.numel() * start.element_size()
