"""The networks for images that a found one is compared with: random cells, and networks made by hand.

All have as many parameters as the found network, within 5% where whole channels allow it. Depth is that of the section
retrain. Drop path and the auxiliary head belong to networks of cells; the others are trained without.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from models.images.baselines import BASELINES, baseline_network, baseline_widths
from models.images.builders import FoundNetwork
from models.images.deploy import Deployed
from models.images.equal import Widths, nearest_widths, parameters_of
from models.images.genotype import from_json, to_json
from models.images.sizes import Channels, is_large, widths
from models.images.spaces import search_space
from models.images.task import found_network
from models.search.genotype import Genotype
from models.search.random_cells import random_cells
from models.training.costs import count_macs, count_parameters
from models.training.seeds import generator
from stages.contracts import Arm
from stages.evaluation import Evaluation
from stages.images.data import read_card
from stages.images.params import Params
from stages.images.testing.cases import evaluation_of, in_batches, read_test_set
from stages.images.testing.with_torch import with_torch
from stages.images.training import retraining_of
from stages.images.training.inputs import read_images

if TYPE_CHECKING:
    from models.images.retrain import Retraining

_SEED = 0  # of the random cells, the same in every comparison


def found(params: Params, genotype: Genotype) -> Arm:
    return _arm(params, "found", "found", _of_cell(genotype, params.retrain.channels))


def random(params: Params, genotype: Genotype, count: int) -> Sequence[Arm]:
    space = search_space(params.search.space, exclude_none=params.search.exclude_none)
    target = _parameters(params, genotype, params.retrain.channels)
    drawn = random_cells(space, generator(_SEED, "random cells"), [genotype])
    return [
        _arm(params, f"random {number}", "random", _of_cell(cell, _equal_channels(params, cell, target)))
        for number, cell in enumerate(itertools.islice(drawn, count), start=1)
    ]


def baselines(params: Params, genotype: Genotype) -> Sequence[Arm]:
    card, target = read_card(), _parameters(params, genotype, params.retrain.channels)
    arms = []
    for name in BASELINES:
        wide = baseline_widths(name, card.image_shape, len(card.classes), target)
        arms.append(_arm(params, name, "baseline", {"baseline": name, "widths": list(wide)}))
    return arms


def retrain(params: Params, network: Mapping[str, Any]) -> Retraining:
    if "baseline" in network:
        params = params.model_copy(update={"retrain": params.retrain.model_copy(update={"drop_path": 0.0})})
    auxiliary = params.retrain.auxiliary_weight > 0
    return retraining_of(built(params, network, auxiliary=auxiliary), read_images(), params)


def evaluate(params: Params, network: Mapping[str, Any], weights: Path) -> Evaluation:
    from safetensors.torch import load_file

    plain = built(params, network)
    plain.load_state_dict(load_file(weights))
    test, deployed = read_test_set(), deployed_of(plain)
    return evaluation_of(
        in_batches(with_torch(deployed), test.images), test, params=count_parameters(deployed)
    )


def built(params: Params, network: Mapping[str, Any], *, auxiliary: bool = False) -> FoundNetwork:
    """The network of an arm, freshly initialized from the seed of the section retrain."""
    card, config = read_card(), params.retrain
    if "baseline" in network:
        made = baseline_network(
            network["baseline"],
            tuple(network["widths"]),
            card.image_shape,
            len(card.classes),
            seed=config.seed,
        )
        return cast("FoundNetwork", made)  # is called and trained in the same way
    return _with_cell(params, from_json(network["cell"]), network["channels"], auxiliary=auxiliary)


def deployed_of(network: FoundNetwork) -> Deployed:
    """The network in evaluation mode, with normalization and softmax inside."""
    card = read_card()
    return Deployed(network, card.mean, card.std).eval()


def _with_cell(
    params: Params, genotype: Genotype, channels: Channels, *, auxiliary: bool = False
) -> FoundNetwork:
    card, config = read_card(), params.retrain
    return found_network(
        genotype,
        card.image_shape,
        len(card.classes),
        seed=config.seed,
        channels=channels,
        cells=config.cells,
        stages=config.stages,
        auxiliary=auxiliary,
    )


def _of_cell(genotype: Genotype, channels: Channels) -> dict[str, Any]:
    return {
        "cell": to_json(genotype),
        "channels": channels if isinstance(channels, int) else list(channels),
    }


def _parameters(params: Params, genotype: Genotype, channels: Channels) -> int:
    return parameters_of(lambda: _with_cell(params, genotype, channels))


def _equal_channels(params: Params, genotype: Genotype, target: int) -> Widths:
    """The channels per stage with which a cell's network has the number of parameters closest to ``target``."""
    least = 2 if is_large(min(read_card().image_shape[:2])) else 1  # the stem of large images halves them
    multiples = widths(1, params.retrain.stages)
    return nearest_widths(lambda wide: _parameters(params, genotype, wide), multiples, target, least)


def _arm(params: Params, name: str, kind: Any, network: Mapping[str, Any]) -> Arm:
    with torch.device("meta"):
        deployed = deployed_of(built(params, network))
    image = torch.zeros((1, *read_card().image_shape), dtype=torch.uint8)
    return Arm(name, kind, network, count_parameters(deployed), count_macs(deployed, image))
