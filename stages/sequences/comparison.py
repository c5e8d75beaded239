"""The networks that a found one is compared with: random cells of the same space, the LSTM and, for series, DLinear.

All but DLinear, whose size the look-back and the horizon decide, have as many parameters as the found network, as far as
whole numbers of hidden units allow it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from models.search.genotype import Genotype
from models.search.random_cells import random_cells
from models.sequences.baselines import parameters_of
from models.sequences.builders import (
    DLINEAR,
    LSTM,
    dlinear_network,
    found_network,
    hidden_for,
    lstm_network,
    lstm_units,
    networks,
)
from models.sequences.genotype import from_json, to_json
from models.sequences.retrain import FOUND
from models.sequences.skeleton import SeriesShape
from models.sequences.spaces import named
from models.training.costs import count_macs
from models.training.seeds import generator
from stages.contracts import Arm
from stages.evaluation import Evaluation
from stages.sequences.data import read_card, shape_of
from stages.sequences.params import TEXT, Params
from stages.sequences.testing.with_torch import evaluated, loaded
from stages.sequences.training import retraining_of

if TYPE_CHECKING:
    from models.sequences.retrain import Retraining

_SEED = 0  # of the random cells, the same in every comparison


def found(params: Params, genotype: Genotype) -> Arm:
    return _arm(params, "found", "found", _of_cell(genotype, params.retrain.hidden, beside=True))


def random(params: Params, genotype: Genotype, count: int) -> Sequence[Arm]:
    space, shape = named(params.search.named_space()), shape_of(read_card(), params.retrain.embedding)
    target = _parameters(params, genotype)
    drawn = random_cells(space, generator(_SEED, "random cells"), [genotype])
    return [
        _arm(params, f"random {number}", "random", _of_cell(cell, hidden_for(cell, shape, target)))
        for number, cell in enumerate(itertools.islice(drawn, count), start=1)
    ]


def baselines(params: Params, genotype: Genotype) -> Sequence[Arm]:
    shape = shape_of(read_card(), params.retrain.embedding)
    units = lstm_units(shape, _parameters(params, genotype))
    arms = [_arm(params, "LSTM", "baseline", {"baseline": LSTM, "units": units})]
    if isinstance(shape, SeriesShape):
        arms.append(_arm(params, "DLinear", "baseline", {"baseline": DLINEAR}))
    return arms


def retrain(params: Params, network: Mapping[str, Any]) -> Retraining:
    return retraining_of(_made(params, network), read_card(), params)


def evaluate(params: Params, network: Mapping[str, Any], weights: Path) -> Evaluation:
    return evaluated(loaded(_made(params, network), weights), read_card())


def _made(params: Params, network: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks that are trained for an arm: beside the found one those that the stage retrain trains beside it."""
    config = params.retrain
    if not network.get("beside", False):
        return {FOUND: built(params, network)}
    shape = shape_of(read_card(), config.embedding)
    cell = from_json(network["cell"])
    return networks(cell, shape, network["hidden"], seed=config.seed, baselines=config.baselines)


def built(params: Params, network: Mapping[str, Any]) -> nn.Module:
    """The network of an arm, freshly initialized from the seed of the section retrain."""
    shape, seed = shape_of(read_card(), params.retrain.embedding), params.retrain.seed
    match network.get("baseline"):
        case "lstm":
            return lstm_network(shape, network["units"], seed=seed)
        case "dlinear":
            assert isinstance(shape, SeriesShape), "texts have no DLinear"
            return dlinear_network(shape, seed=seed)
    return found_network(from_json(network["cell"]), shape, network["hidden"], seed=seed)


def _of_cell(genotype: Genotype, hidden: int, *, beside: bool = False) -> dict[str, Any]:
    return {"cell": to_json(genotype), "hidden": hidden, **({"beside": True} if beside else {})}


def _parameters(params: Params, genotype: Genotype) -> int:
    config = params.retrain
    shape = shape_of(read_card(), config.embedding)
    return parameters_of(lambda: found_network(genotype, shape, config.hidden, seed=config.seed))


def _arm(params: Params, name: str, kind: Literal["found", "random", "baseline"], network: Mapping[str, Any]) -> Arm:  # fmt: skip
    card = read_card()
    with torch.device("meta"):
        made = built(params, network).eval()
        case = (
            torch.zeros(1, card.chunk, dtype=torch.int64)
            if card.kind == TEXT
            else torch.zeros(1, card.lookback, len(card.variables))
        )
    return Arm(name, kind, network, sum(one.numel() for one in made.parameters()), count_macs(made, case))
