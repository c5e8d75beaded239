"""The spaces of images, genotype.json, and how cells are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.images.genotype import from_json, to_json
from models.images.spaces import NASBENCH201_NODES, NODES, search_space
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from stages.contracts import Layout


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
