"""The spaces of images, genotype.json, and how cells are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.images.families import FoundNetwork
from models.images.genotype import from_json, to_json
from models.images.spaces import NASBENCH201_NODES, NODES, search_space
from models.images.task import ImageTask
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from stages.contracts import Layout
from stages.images.params import RetrainParams


def space(name: str, *, exclude_none: bool) -> SearchSpace:
    return search_space(name, exclude_none=exclude_none)


def genotype_json(genotype: Genotype) -> dict[str, Any]:
    return to_json(genotype)


def genotype_of(content: Mapping[str, Any]) -> Genotype:
    return from_json(content)


def layout(genotype: Genotype) -> Layout:
    if genotype.space == "nasbench201":
        nodes = ["input", *(f"node {node}" for node in range(1, NASBENCH201_NODES))]
        return Layout(nodes, inputs=1, outputs=[NASBENCH201_NODES - 1], titles={"cell": "cell"})
    nodes = ["cell k\u22122", "cell k\u22121", *(f"node {node}" for node in range(NODES))]
    titles = {"reduce": "reduce cell: inputs to half their side"}
    return Layout(nodes, inputs=2, outputs=range(2, 2 + NODES), titles=titles)


def build_network(
    image_shape: Sequence[int], classes: int, genotype: Genotype, config: RetrainParams, *, auxiliary: bool
) -> FoundNetwork:
    """The network of a genotype for such images, freshly initialized."""
    space = search_space("nasbench201" if genotype.space == "nasbench201" else "s5")
    task = ImageTask(space, image_shape, classes, config.seed, stages=config.stages)
    return task.network(genotype, channels=config.channels, cells=config.cells, auxiliary=auxiliary)
