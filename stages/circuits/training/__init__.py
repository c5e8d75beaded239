"""The search of a circuit, and the fine-tuning of its angles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import psutil

from models.circuits.circuit import SuperCircuit
from models.circuits.objective import check_memory
from models.circuits.search import CircuitSearch, CircuitSearchConfig, circuit_search
from models.circuits.targets import Target
from models.circuits.tuning import Tuning, TuningConfig, tuning
from models.search.genotype import Genotype
from stages.circuits.data import found_circuit, read_card, super_circuit, target_of
from stages.circuits.params import Params
from stages.circuits.training.strategies import strategy_of

_SHARE = 0.5  # of the memory that is free, which a step may take


def inputs(params: Params) -> Mapping[str, str]:
    return {}


def search(params: Params) -> CircuitSearch:
    card, config = read_card(), params.search
    circuit = super_circuit(card, config.operations, config.places)
    train, valid = target_of(card, "train"), target_of(card, "val")
    samples = config.batch_size * config.restarts if config.strategy == "dqas" else config.restarts
    _check(circuit, train, samples, density=config.strategy == "rho-darts")
    _check(circuit, valid, config.restarts)
    names = (
        "epochs",
        "steps",
        "restarts",
        "learning_rate",
        "learning_rate_end",
        "initial_angles",
        "angle_noise",
    )
    settings = CircuitSearchConfig(**{name: getattr(config, name) for name in names})
    return circuit_search(circuit, train, valid, partial(strategy_of, config, circuit), settings, config.seed)


def retrain(params: Params, genotype: Genotype) -> Tuning:
    card, config = read_card(), params.retrain
    circuit = found_circuit(card, genotype)
    train, valid = target_of(card, "train"), target_of(card, "val")
    _check(circuit, train, config.starts)
    names = ("epochs", "steps", "starts", "learning_rate", "learning_rate_end", "initial_angles")
    settings = TuningConfig(**{name: getattr(config, name) for name in names})
    return tuning(circuit, genotype, train, valid, settings, config.seed)


def _check(circuit: SuperCircuit, target: Target, samples: int, *, density: bool = False) -> None:
    """Raises InvalidInput when a step would need more memory than this machine has to spare."""
    check_memory(circuit, target, samples, _SHARE * psutil.virtual_memory().available, density=density)
