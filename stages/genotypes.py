"""Reads genotype.json for the stages after discretize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import InvalidInput
from stages import tasks
from stages.errors import UserError
from stages.plumbing.files import GENOTYPE_JSON, read_json

if TYPE_CHECKING:
    from models.search.genotype import Genotype


def read_genotype(task: str) -> Genotype:
    """The genotype that discretize has written. Raises UserError when no network of the task can have it."""
    try:
        return tasks.architectures(task).genotype_of(read_json(GENOTYPE_JSON))
    except InvalidInput as error:
        raise UserError(f"{GENOTYPE_JSON}: {error}") from None
