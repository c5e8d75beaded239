"""After the search: measures the found network and, where it misses the budget, finds the next best one that does not.

The network of the mix is measured first. While a network misses the budget by more than the tolerance, its measurement
joins the table, the predictor is fitted again, and the best network is tried that it expects within the budget. Where
networks take longer than predicted, by a clock that has slowed down for example, the next one has to be predicted as
much faster. After ``ATTEMPTS`` networks the fastest of them is taken, and a notice says that it misses the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.search.latency.cells import next_best
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import Predictor, fit
from models.search.random_cells import edges_of
from stages import tasks
from stages.errors import UserError
from stages.found_latency import FoundLatency, Tried, is_device, most
from stages.latencies import LatencyRecord, Measurement, read_predictor, read_record, read_table
from stages.measuring import here
from stages.measuring.journal import Times
from stages.plumbing.files import LATENCY

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from models.search.objective import Mix
    from models.search.spaces import SearchSpace
    from stages.contracts import Architectures, Latency
    from stages.params import LatencyParams, Params

ATTEMPTS = 8
SHARE = 0.02  # of the weights of all rows of the table, that a network tried here has when the predictor is fitted again

Candidate = Callable[[Predictor, float, Collection["Genotype"]], "Genotype | None"]


@dataclass(frozen=True)
class Attempt:
    """A network that was considered; ``times`` are None where this machine is not the device."""

    genotype: Genotype
    predicted_ms: float
    times: Times | None

    @property
    def ms(self) -> float:
        """As measured, or else as predicted."""
        return self.predicted_ms if self.times is None else self.times[0]


@dataclass
class Attempts:
    """The networks that were considered, in order, until one keeps to the budget."""

    budget_ms: float | None
    tolerance: float
    predictor: Predictor
    predict: Callable[[Predictor, Genotype], float]
    candidate: Candidate  # the best network within a predicted latency, other than some
    refit: Callable[[Sequence[Measurement]], Predictor]
    measure: Callable[[Genotype], Times] | None  # None: this machine is not the device
    made: list[Attempt] = field(default_factory=list)

    def run(self, first: Genotype) -> int:
        """Makes the attempts, the network ``first`` before all others. Returns the place of the one that is taken."""
        limit_ms, genotype = self.budget_ms or 0.0, first
        while genotype is not None:
            self.made.append(self._attempt(genotype))
            if self.kept(self.made[-1]):
                return len(self.made) - 1
            if len(self.made) == ATTEMPTS:
                break
            limit_ms = min(limit_ms, self._learned(self.made[-1]))
            genotype = self.candidate(self.predictor, limit_ms, [attempt.genotype for attempt in self.made])
        return min(range(len(self.made)), key=lambda place: self.made[place].ms)

    def _attempt(self, genotype: Genotype) -> Attempt:
        """A network, measured once more if it misses the budget, because other programs may have slowed it down."""
        attempt = Attempt(genotype, self.predict(self.predictor, genotype), None)
        if self.measure is None:
            return attempt
        first = replace(attempt, times=self.measure(genotype))
        if self.kept(first):
            return first
        return min(first, replace(attempt, times=self.measure(genotype)), key=lambda each: each.ms)

    def kept(self, attempt: Attempt) -> bool:
        """Whether a network keeps to the budget. What is only predicted gets no tolerance."""
        if self.budget_ms is None:
            return True
        tolerance = 0.0 if attempt.times is None else self.tolerance
        return attempt.ms <= most(self.budget_ms, tolerance)

    def _learned(self, missed: Attempt) -> float:
        """Fits the predictor to what was measured, and returns what the next network may be predicted to take."""
        assert self.budget_ms is not None
        if missed.times is None:
            return self.budget_ms
        measured = [(attempt.genotype, attempt.times) for attempt in self.made if attempt.times is not None]
        self.predictor = self.refit([Measurement(genotype, *times) for genotype, times in measured])
        return self.budget_ms * min(1.0, self.predict(self.predictor, missed.genotype) / missed.ms)


def found(
    params: Params, part: Latency, space: SearchSpace, mix: Mix, first: Genotype
) -> tuple[Genotype, FoundLatency]:
    """The network of a mix that keeps to the budget, and the content of its latency.json.

    ``first`` is the network of the mix without a budget. Raises UserError where the stage measure has not run.
    """
    record = read_record(tasks.metric(params))
    if not record.known:
        raise UserError(f"{LATENCY} holds no measurements; `dvc repro measure` makes them")
    config = params.latency.model_copy(update={"threads": record.threads or params.latency.threads})
    architectures, device = tasks.architectures(params.task), here.device(config.threads)
    at_home = is_device(record, device)
    bench = here.Bench(params.model_copy(update={"latency": config}), part)
    attempts = Attempts(
        config.budget_ms,
        config.tolerance,
        read_predictor(space),
        lambda predictor, genotype: float(predictor(Encoding(space).encode(genotype)[None])),
        candidates(space, mix, architectures),
        refitting(config, space, record, architectures),
        (lambda genotype: one_thread(bench, genotype)) if at_home else None,
    )
    chosen = attempts.run(alive(space, first, attempts))
    about = {
        name: getattr(record, name) for name in ("device", "processor", "governor", "threads", "runtime")
    }
    about |= {"batch_size": record.batch_size, "precision": record.precision, "unit": record.unit}
    return attempts.made[chosen].genotype, record_of(
        config, attempts, chosen, {**about, **(device if at_home else {})}, architectures
    )


def alive(space: SearchSpace, first: Genotype, attempts: Attempts) -> Genotype:
    """The first network or, where no path leads through its cells, the best one within the budget.

    Without a path, a network computes nothing of its input, and keeps to the budget for that reason alone.
    """
    if attempts.budget_ms is None or Encoding(space).leads(first):
        return first
    return attempts.candidate(attempts.predictor, attempts.budget_ms, [first]) or first


def candidates(space: SearchSpace, mix: Mix, architectures: Architectures) -> Candidate:
    """A function that finds the best network within a latency; where it finds none, the fastest of the table.

    Neither is a network in which no path leads from the input to the output.
    """
    encoding = Encoding(space)

    def candidate(predictor: Predictor, limit_ms: float, tried: Collection[Genotype]) -> Genotype | None:
        if (best := next(next_best(space, mix, predictor, limit_ms, exclude=tried), None)) is not None:
            return best
        table = read_table(LATENCY / "measurements.csv", architectures)
        alive = [row for row in table if encoding.leads(row.genotype)]
        fastest = min(alive, key=lambda row: row.ms, default=None)
        known = {edges_of(genotype) for genotype in tried}
        return None if fastest is None or edges_of(fastest.genotype) in known else fastest.genotype

    return candidate


def one_thread(bench: here.Bench, genotype: Genotype) -> Times:
    """Measures one network while no thread of torch waits beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return bench([genotype])[0]
    finally:
        torch.set_num_threads(threads)


def refitting(
    config: LatencyParams, space: SearchSpace, record: LatencyRecord, architectures: Architectures
) -> Callable[[Sequence[Measurement]], Predictor]:
    """A function that fits a predictor of the same kind to the table and to what was measured since."""
    encoding = Encoding(space)

    def refit(measured: Sequence[Measurement]) -> Predictor:
        table = read_table(LATENCY / "measurements.csv", architectures)
        rows = [*(row for row in table if not row.held_out), *measured]
        weights_N = torch.ones(len(rows))
        weights_N[-len(measured) :] = max(SHARE * len(rows), 1.0)
        return fit(
            torch.stack([encoding.encode(row.genotype) for row in rows]),
            torch.tensor([row.ms for row in rows]),
            seed=config.seed,
            kinds=(record.kind or "additive",),
            weights=weights_N,
            references=[
                read_predictor(space, Path(path), "latency.predictors") for path in config.predictors
            ],
        ).predictor

    return refit


def record_of(
    config: LatencyParams,
    attempts: Attempts,
    chosen: int,
    about: dict[str, Any],
    architectures: Architectures,
) -> FoundLatency:
    """The content of latency.json."""
    tried = [
        Tried(
            genotype=architectures.genotype_json(attempt.genotype),
            predicted_ms=attempt.predicted_ms,
            **(
                {}
                if attempt.times is None
                else dict(zip(("measured_ms", "measured_ms_spread"), attempt.times, strict=True))
            ),
        )
        for attempt in attempts.made
    ]
    fields = {
        "budget_ms": config.budget_ms,
        "tolerance": None if config.budget_ms is None else config.tolerance,
        "measured_here": attempts.measure is not None,
        **about,
        "tried": tried,
        "chosen": chosen,
        "notice": notice(config.budget_ms, attempts, chosen, about.get("processor")),
    }
    return FoundLatency.model_validate({name: value for name, value in fields.items() if value is not None})


def notice(budget_ms: float | None, attempts: Attempts, chosen: int, processor: str | None) -> str | None:
    """What the user should know about the network that was taken, a sentence without a full stop; None: nothing."""
    taken = attempts.made[chosen]
    if budget_ms is None:
        return None
    if not attempts.kept(taken):
        how = "takes" if taken.times else "is predicted to take"
        count = len(attempts.made)
        least = f"the least of {count} networks tried" if count > 1 else "and no other is predicted within it"
        return (
            f"latency.budget_ms is {budget_ms:g}, but the found network {how} {taken.ms:.3g} ms,"
            f" {least}; raise the budget or search.epochs, or measure again on an idle machine"
        )
    if taken.times is None:
        return (
            f"latency.budget_ms is {budget_ms:g}, kept by prediction only ({taken.ms:.3g} ms), because the table is about"
            f" another device ({processor or 'unknown'}) than this one; measure the exported network there"
        )
    return None
