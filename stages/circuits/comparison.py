"""The circuits that a found one is compared with: those of the same pool and places, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from models.circuits.circuit import space
from models.circuits.scores import per_case
from models.circuits.tuning import Tuning
from models.search.genotype import Genotype
from models.search.random_cells import random_cells
from models.training.seeds import generator
from stages.circuits.architectures import genotype_json, genotype_of
from stages.circuits.data import found_circuit, inputs_of, read_card, super_circuit, target_of
from stages.circuits.params import Params
from stages.circuits.testing import evaluation_of, free_angles, load_angles
from stages.circuits.training import retrain as tuning
from stages.contracts import Arm
from stages.evaluation import Evaluation


def found(params: Params, genotype: Genotype) -> Arm:
    return _arm("found", "found", genotype)


def random(params: Params, genotype: Genotype, count: int) -> Sequence[Arm]:
    searched = super_circuit(read_card(), params.search.operations, params.search.places)
    drawn = random_cells(space(searched), generator(0, "random circuits"), [genotype])
    return [
        _arm(f"random {number}", "random", one) for number, one in enumerate(islice(drawn, count), start=1)
    ]


def baselines(params: Params, genotype: Genotype) -> Sequence[Arm]:
    return []


def retrain(params: Params, network: Mapping[str, Any]) -> Tuning:
    return tuning(params, genotype_of(network))


def evaluate(params: Params, network: Mapping[str, Any], weights: Path) -> Evaluation:
    card, genotype = read_card(), genotype_of(network)
    circuit = found_circuit(card, genotype)
    scores = per_case(target_of(card, "test"), circuit, genotype, load_angles(weights), inputs_of(card))
    return evaluation_of(card, scores, params=free_angles(circuit))


def _arm(name: str, kind: Literal["found", "random"], genotype: Genotype) -> Arm:
    return Arm(name, kind, genotype_json(genotype), free_angles(found_circuit(read_card(), genotype)))
