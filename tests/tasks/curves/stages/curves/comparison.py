"""The other curve is what a found one is compared with. There are no curves made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from models.curves.cells import SPACE, Curve, from_json, to_json
from models.curves.training import Fitting
from safetensors.torch import load_file
from stages.curves.data import read_split
from stages.curves.params import Params
from stages.curves.testing import evaluation_of
from stages.curves.training import retrain as fitting

from models.search.genotype import Genotype
from models.search.random_cells import random_cells
from models.training.seeds import generator
from stages.contracts import Arm
from stages.evaluation import Evaluation


def found(params: Params, genotype: Genotype) -> Arm:
    return _arm("found", "found", genotype)


def random(params: Params, genotype: Genotype, count: int) -> Sequence[Arm]:
    cells = random_cells(SPACE, generator(0, "random cells"), [genotype])
    return [
        _arm(f"random {number}", "random", cell) for number, cell in enumerate(islice(cells, count), start=1)
    ]


def baselines(params: Params, genotype: Genotype) -> Sequence[Arm]:
    return []


def retrain(params: Params, network: Mapping[str, Any]) -> Fitting:
    return fitting(params, from_json(network))


def evaluate(params: Params, network: Mapping[str, Any], weights: Path) -> Evaluation:
    curve = Curve(from_json(network))
    curve.load_state_dict(load_file(weights))
    with torch.no_grad():
        answers = curve.eval()(torch.from_numpy(read_split("test")[:, 0].copy())).numpy()
    return evaluation_of(answers, params=sum(weight.numel() for weight in curve.parameters()))


def _arm(name: str, kind: Literal["found", "random"], genotype: Genotype) -> Arm:
    size = sum(weight.numel() for weight in Curve(genotype).parameters())
    return Arm(name, kind, to_json(genotype), size)
