"""The content of ``genotype.json``: the family's name (``space``) and the genotype in its notation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.images.families import DARTS, FAMILIES, family_of
from models.search.genotype import Genotype


def to_json(genotype: Genotype) -> dict[str, Any]:
    """The content of ``genotype.json``."""
    return {"space": genotype.space, **family_of(genotype).to_json(genotype)}


def from_json(content: Mapping[str, Any]) -> Genotype:
    """Reads what ``to_json`` writes; ``space`` may be absent in DARTS.

    Raises InvalidInput for what no network has.
    """
    name = content.get("space", DARTS.name)
    if not isinstance(name, str) or name not in FAMILIES:
        raise InvalidInput(
            f"genotype: space {name!r} is unknown; expected {' or '.join(map(repr, FAMILIES))}"
        )
    return FAMILIES[name].from_json(content)
