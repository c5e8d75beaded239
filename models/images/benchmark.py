"""What a table of trained cells says about a genotype: its accuracy and its place among all cells.

Made for NAS-Bench-201 (arXiv 2001.00326), where every cell of the space has been trained. Tables are read
from files elsewhere.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

from models.errors import InvalidInput
from models.images.notations import arch_str
from models.search.genotype import Genotype


@dataclass(frozen=True)
class Standing:
    """The tabulated accuracy in % and the rank of a cell, 1 for the best.

    Cells of equal accuracy share a rank.
    """

    accuracy: float
    rank: int


class Benchmark:
    """A table: arch_str -> accuracy in %."""

    def __init__(self, accuracies: Mapping[str, float]):
        self.accuracies = accuracies
        self._ascending = sorted(accuracies.values())

    def __len__(self) -> int:
        """Cells in the table."""
        return len(self._ascending)

    def standing(self, genotype: Genotype) -> Standing:
        """Accuracy and rank of the genotype. Raises InvalidInput when the table lacks it."""
        cell = arch_str(genotype)
        if cell not in self.accuracies:
            raise InvalidInput(f"the benchmark table of {len(self)} cells does not have {cell}")
        accuracy = self.accuracies[cell]
        better = len(self) - bisect.bisect_right(self._ascending, accuracy)
        return Standing(accuracy, 1 + better)
