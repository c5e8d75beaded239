"""Makes the strategy of a search of circuits from its settings."""

from __future__ import annotations

from functools import partial

import torch

from models.circuits.circuit import SuperCircuit
from models.search.gradients import Estimator, Joint
from models.search.penalties import Constant, Cost, Penalty, repetition
from models.search.score_function import ScoreFunction, ScoreFunctionConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating
from models.training.schedules import geometric
from models.training.seeds import generator
from stages.circuits.params import SearchParams


def strategy_of(config: SearchParams, circuit: SuperCircuit, space: SearchSpace) -> Alternating:
    """The strategy on a space of several restarts, with newly drawn architecture parameters."""
    alpha = config.alpha
    settings = AlphaConfig(
        alpha.learning_rate, (alpha.betas[0], alpha.betas[1]), alpha.weight_decay, alpha.warmup_epochs
    )
    return Alternating(
        space,
        settings,
        generator(config.seed, "alpha"),
        estimator=_estimator(config),
        penalties=_penalties(config, circuit),
        temperature=partial(geometric, 1.0, alpha.temperature_end, epochs=config.epochs),
    )


def _estimator(config: SearchParams) -> Estimator:
    if config.strategy == "rho-darts":
        return Joint()
    sampled = ScoreFunctionConfig(samples=config.batch_size, **config.dqas.model_dump())
    return ScoreFunction(sampled, generator(config.seed, "samples"))


def _penalties(config: SearchParams, circuit: SuperCircuit) -> list[Penalty]:
    penalties: list[Penalty] = []
    if config.repetition > 0:
        penalties.append(Constant(repetition, config.repetition))
    if config.two_qubit_cost > 0:
        penalties.append(Constant(Cost(two_qubit_gates(circuit)), config.two_qubit_cost))
    return penalties


def two_qubit_gates(circuit: SuperCircuit) -> torch.Tensor:
    """How many gates on two or more qubits each candidate (O,) of a place has."""
    counts = []
    for candidate in circuit.places[0].candidates:
        gates = candidate.gates([0.0] * candidate.num_angles, circuit.qubits, circuit.couplings)
        counts.append(float(sum(len(gate.qubits) > 1 for gate in gates)))
    return torch.tensor(counts)
