"""The space of curves, genotype.json, and how the cell is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.curves.cells import SPACE, from_json, to_json

from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from stages.contracts import Layout


def space(name: str, *, exclude_none: bool) -> SearchSpace:
    return SPACE


def genotype_json(genotype: Genotype) -> dict[str, Any]:
    return to_json(genotype)


def genotype_of(content: Mapping[str, Any]) -> Genotype:
    return from_json(content)


def layout(genotype: Genotype) -> Layout:
    return Layout(["x", "y"], inputs=1, outputs=[1], titles={"cell": "cell"})
