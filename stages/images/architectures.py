"""The search spaces of images, genotype.json, and how cells are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.images.families import family_of
from models.images.genotype import from_json, to_json
from models.images.spaces import search_space
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
    cell = family_of(genotype).layout
    note = "k−2 and k−1 are the outputs of the two previous cells." if cell.inputs == 2 else ""
    return Layout(cell.nodes, cell.inputs, cell.outputs, cell.titles, note=note)
