"""What an exported file must show to become champion.

Each condition is a pure function that returns a reason to refuse the file, or None. The conditions read
evaluations and the task's metric only, so they are the same for every task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluation import Evaluation, Metric
from stages.params import RegistryParams

NOISE = 0.05  # a difference with a p-value below this is called more than noise
_ROUNDING = 1e-12  # scores may be quotients of counts: 0.75 - 0.65 < 0.1


@dataclass(frozen=True, eq=False)
class Champion:
    """The version to beat, and its evaluation on the challenger's test cases."""

    version: int
    evaluation: Evaluation | None
    trouble: str | None = None  # why there is no evaluation


@dataclass(frozen=True)
class Budget:
    """The latency budget of the search, and how long the challenger takes under its conditions."""

    budget_ms: float
    taken_ms: float
    conditions: str  # in words


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known about a challenger when it is judged."""

    metric: Metric  # what is compared; one of the forms of the task's metric
    file: str  # the exported file's name
    challenger: Evaluation
    champion: Champion | None
    largest_difference: float  # between the exported file's and torch's answers, over all test cases
    disagreements: int  # test cases that the exported file and torch answer differently, ties aside
    identical: bool  # the registered file answers bit for bit as the exported one
    budget: Budget | None = None  # None: registry.max_latency_ms is about the latency of one case


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same test cases."""

    gain: float  # how much better the challenger's score is, whatever the metric's direction
    challenger_better: (
        int  # cases; where answers are right or wrong: those that only the challenger got right
    )
    champion_better: int
    p_value: float  # of the metric's paired test, two-sided

    @property
    def exceeds_noise(self) -> bool:
        """Whether chance alone would make such a difference less than once in twenty times."""
        return self.p_value < NOISE


@dataclass(frozen=True, eq=False)
class Judgement:
    """The gate's decision, and what it rests on."""

    evidence: Evidence
    refusals: tuple[str, ...]  # empty: the challenger passes
    compared: Comparison | None  # None where one of the two has no score
    sound: bool = True  # whether nothing but the comparison with a champion speaks against it
    asks: str | None = (
        None  # why a person decides about a challenger that passes the gate; None: the gate does
    )

    @property
    def passed(self) -> bool:
        """Whether there is no reason to refuse the challenger."""
        return not self.refusals

    @property
    def accepted(self) -> bool:
        """Whether the challenger becomes champion now."""
        return self.passed and self.asks is None


Condition = Callable[[Evidence, Comparison | None, RegistryParams], str | None]


def decide(evidence: Evidence, limits: RegistryParams) -> Judgement:
    """Asks every condition, so that all reasons to refuse the challenger are known at once."""
    compared = comparison(evidence)

    def refusals(conditions: Sequence[Condition]) -> list[str]:
        found = (condition(evidence, compared, limits) for condition in conditions)
        return [reason for reason in found if reason]

    own = refusals(OWN)
    return Judgement(evidence, (*own, *refusals(RELATIVE)), compared, sound=not own)


def comparison(evidence: Evidence) -> Comparison | None:
    """Challenger against champion; None where one of the two has no score."""
    champion, metric = evidence.champion, evidence.metric
    ours = metric.of(evidence.challenger)
    if champion is None or champion.evaluation is None or not math.isfinite(ours.score):
        return None
    theirs = metric.of(champion.evaluation)
    gains_N = metric.gain(1.0, 0.0) * (ours.per_case - theirs.per_case)
    return Comparison(
        gain=metric.gain(ours.score, theirs.score),
        challenger_better=int(np.count_nonzero(gains_N > 0)),
        champion_better=int(np.count_nonzero(gains_N < 0)),
        p_value=metric.p_value(ours.per_case, theirs.per_case),
    )


def scores(evidence: Evidence) -> str:
    """Both scores, in words. The champion must have an evaluation."""
    champion, metric = evidence.champion, evidence.metric
    assert champion is not None and champion.evaluation is not None
    ours, theirs = (metric.digits(metric.score(each)) for each in (evidence.challenger, champion.evaluation))
    return f"test {metric.words} {ours} against {theirs} of version {champion.version}"


def reload(evidence: Evidence, _: Comparison | None, __: RegistryParams) -> str | None:
    """The registered file must be the exported one."""
    if evidence.identical:
        return None
    return (
        "the registered file does not give the same answers as the exported file; delete the version and run"
        " `dvc repro` to register it again"
    )


def parity(evidence: Evidence, _: Comparison | None, limits: RegistryParams) -> str | None:
    """The exported file must be what was trained."""
    if evidence.disagreements:
        return (
            f"{evidence.file} and torch give different answers for {evidence.disagreements} test"
            f" {evidence.metric.case}s"
        )
    if not evidence.largest_difference <= limits.max_difference:
        return (
            f"the largest difference between the answers of {evidence.file} and torch is"
            f" {evidence.largest_difference:.1e}, more than registry.max_difference ({limits.max_difference:g})"
        )
    return None


def latency(evidence: Evidence, _: Comparison | None, limits: RegistryParams) -> str | None:
    """The time budget."""
    limit, case, budget = limits.max_latency_ms, evidence.metric.case, evidence.budget
    if limit is None:
        return None
    if budget is not None:
        if budget.taken_ms <= limit:
            return None
        return (
            f"a call takes {budget.taken_ms:.3g} ms ({budget.conditions}), more than latency.budget_ms"
            f" ({budget.budget_ms:g}) and latency.tolerance allow ({limit:.3g})"
        )
    if (taken := evidence.challenger.costs.get("latency_ms")) is None:
        return f"registry.max_latency_ms is {limit:g}, but nothing measured the time per {case}"
    if taken <= limit:
        return None
    return f"one {case} takes {taken:.2f} ms, more than registry.max_latency_ms ({limit:g})"


def size(evidence: Evidence, _: Comparison | None, limits: RegistryParams) -> str | None:
    """The size budget."""
    limit = limits.max_size_mb
    if limit is None:
        return None
    if (bytes_ := evidence.challenger.costs.get("size_bytes")) is None:
        return f"registry.max_size_mb is {limit:g}, but nothing measured the size of {evidence.file}"
    if bytes_ / 1e6 <= limit:
        return None
    return f"{evidence.file} has {bytes_ / 1e6:.2f} MB, more than registry.max_size_mb ({limit:g})"


def measured(evidence: Evidence, _: Comparison | None, __: RegistryParams) -> str | None:
    """The score must be a number. Otherwise not even the first version may become champion."""
    score = evidence.metric.score(evidence.challenger)
    return None if math.isfinite(score) else f"its test {evidence.metric.words} is {score}, not a number"


def comparable(evidence: Evidence, _: Comparison | None, __: RegistryParams) -> str | None:
    """The champion, where there is one, must have been evaluated on the same test cases."""
    return evidence.champion.trouble if evidence.champion is not None else None


def gain(evidence: Evidence, compared: Comparison | None, limits: RegistryParams) -> str | None:
    """Better than the champion, by min_gain at least."""
    if compared is None:
        return None
    if compared.gain <= 0:
        return scores(evidence)
    if compared.gain < limits.min_gain - _ROUNDING:
        return f"{scores(evidence)}, a gain below registry.min_gain ({limits.min_gain:g})"
    return None


def significance(_: Evidence, compared: Comparison | None, limits: RegistryParams) -> str | None:
    """Where registry.significance is set: chance must be an unlikely cause of the difference."""
    limit = limits.significance
    if compared is None or limit is None or compared.p_value <= limit:
        return None
    return f"the difference may be noise: p = {compared.p_value:.2g}, above registry.significance ({limit:g})"


OWN: tuple[Condition, ...] = (reload, parity, latency, size, measured)  # about the challenger alone
RELATIVE: tuple[Condition, ...] = (comparable, gain, significance)  # about challenger and champion
