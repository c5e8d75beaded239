"""Measures architectures of the search space on this machine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from models.search.latency.encoding import Encoding
from models.search.spaces import SearchSpace
from models.training.seeds import generator
from stages.latencies import Measurement
from stages.measuring import bench
from stages.measuring.fitting import spread_of
from stages.measuring.journal import Journal, Times, measured_by
from stages.measuring.sampling import Plan, drawn_again

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from stages.contracts import Architectures, Latency
    from stages.params import LatencyParams, Params


@dataclass(frozen=True)
class Bench:
    """Measures architectures with the settings of section latency."""

    params: Params
    part: Latency

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Times]:
        """(median, spread) in ms of each."""
        config = self.params.latency
        feed = bench.feed_of(self.part.inputs(self.params), config.batch_size)
        networks = [self.part.network(self.params, genotype) for genotype in genotypes]
        return bench.measured(networks, feed, config.threads, config.repeats, config.warmup)


@dataclass(frozen=True)
class Survey:
    """Measures the architectures that section latency asks for, and keeps them in a journal."""

    config: LatencyParams
    space: SearchSpace
    architectures: Architectures
    bench: Callable[[Sequence[Genotype]], Sequence[Times]]
    journal: Journal
    count: Callable[[str, int, int], None]

    def run(self) -> tuple[list[Measurement], float | None]:
        """The measurements, and the mean relative difference between the first and the second of an architecture."""
        config, plan = self.config, Plan(self.space, self.config.seed)
        held_out = plan.held_out(config.held_out)
        sizes = round_sizes(config.samples - len(held_out), config.rounds)
        first = [(genotype, True) for genotype in held_out] + [
            (genotype, False) for genotype in plan.first(sizes[0])
        ]
        # Mixed, so that a clock that changes slowly does not fall on the held-out ones alone.
        order = torch.randperm(len(first), generator=generator(config.seed, "latency order")).tolist()
        rows = self._measured([first[place] for place in order])
        encoding = Encoding(self.space)
        for number, size in enumerate(sizes[1:], start=1):
            known = [row for row in rows if not row.held_out]
            chosen = plan.unsure(size, spread_of(known, encoding, config.seed + number))
            rows += self._measured([(genotype, False) for genotype in chosen])
        return rows, self._noise(rows)

    def _measured(self, wanted: Sequence[tuple[Genotype, bool]], turn: int = 1) -> list[Measurement]:
        names = {self._name(genotype): genotype for genotype, _ in wanted}
        total = self.config.samples + self.config.repeated
        count = partial(self.count, "measurements")
        times = measured_by(self.journal, names, self.bench, lambda done: count(done, max(done, total)), turn)
        return [
            Measurement(genotype, ms, spread, held_out)
            for (genotype, held_out), (ms, spread) in zip(wanted, times, strict=True)
        ]

    def _noise(self, rows: Sequence[Measurement]) -> float | None:
        before = {self._name(row.genotype): row.ms for row in rows}
        again = drawn_again([row.genotype for row in rows], self.config.repeated, self.config.seed)
        differences = [
            abs(row.ms - (first := before[self._name(row.genotype)])) / first
            for row in self._measured([(genotype, False) for genotype in again], turn=2)
        ]
        return sum(differences) / len(differences) if differences else None

    def _name(self, genotype: Genotype) -> str:
        return json.dumps(self.architectures.genotype_json(genotype))


def round_sizes(count: int, rounds: int) -> list[int]:
    """How many architectures each round measures: half of them in the first, equal parts of the others."""
    if rounds == 1:
        return [count]
    first = count // 2
    rest = count - first
    ends = [rest * number // (rounds - 1) for number in range(rounds)]
    return [first, *(end - start for start, end in itertools.pairwise(ends))]


def device(threads: int) -> dict[str, Any]:
    """This machine, as a record has it."""
    return {**bench.described(threads), "threads": threads}
