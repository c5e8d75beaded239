"""The fastest network of a search space, as far as a predictor leads to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from models.search.genotype import Genotype
from models.search.spaces import SearchSpace
from stages.latencies import Measurement

_STARTS = 5  # known architectures, the fastest ones, from which better ones are looked for

Predict = Callable[[Sequence[Genotype]], Tensor]  # genotypes -> ms (N,)


def fastest(
    rows: Sequence[Measurement],
    space: SearchSpace,
    predict: Predict,
    measure: Callable[[Genotype], float] | None,
) -> Measurement:
    """The fastest of the rows and of what single changes make of the fastest of them, as long as the prediction falls.

    What is found is measured, or keeps its predicted latency where ``measure`` is None.
    """
    starts = sorted(rows, key=lambda row: row.ms)[:_STARTS]
    found = {}
    for start in starts:
        genotype, ms = _descend(start.genotype, space, predict)
        found[str(genotype)] = Measurement(genotype, measure(genotype) if measure else max(ms, 0.0))
    return replace(min([starts[0], *found.values()], key=lambda row: row.ms), held_out=False)


def _descend(genotype: Genotype, space: SearchSpace, predict: Predict) -> tuple[Genotype, float]:
    lowest = float(predict([genotype]))
    while True:
        others = list(neighbours(genotype, space))
        said = predict(others)
        if not others or float(said.min()) >= lowest:
            return genotype, lowest
        lowest, genotype = float(said.min()), others[int(said.argmin())]


def neighbours(genotype: Genotype, space: SearchSpace) -> Iterator[Genotype]:
    """The architectures of the space that differ in one edge: in its operation, or in where it starts."""
    for group, chosen in genotype.groups.items():
        for place, (src, dst, op) in enumerate(chosen):
            taken = {(other, end) for other, end, _ in chosen} - {(src, dst)}
            edges = [edge for edge in space.groups[group] if edge.dst == dst and (edge.src, dst) not in taken]
            for edge, new in itertools.chain(*([(edge, op) for op in edge.ops] for edge in edges)):
                if (edge.src, new) != (src, op) and not (space.exclude_none and new == "none"):
                    changed = (*chosen[:place], (edge.src, dst, new), *chosen[place + 1 :])
                    yield replace(genotype, groups={**genotype.groups, group: changed})
