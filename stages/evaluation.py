"""One evaluation for all tasks: how well an exported file does on the test cases, and how two files are compared.

A task measures an ``Evaluation`` once. The gate, promotions, sweeps, comparisons, the model card and the report
read nothing else. The task's ``Metric`` tells them what the numbers mean.

Two paired tests are used, both two-sided. Both files must have answered the same cases:

    right or wrong    McNemar's exact test (McNemar 1947): if both are equally good, each is equally likely to be the
                      right one on a case that only one of them got right; a binomial distribution with p = 1/2
    numbers           permutation test (Fisher 1935): if both are equally good, every difference is equally likely with
                      either sign. All signs are tried for up to 12 cases, otherwise 4,999 seeded random draws

A metric whose cases have classes has a balanced form (``Metric.balanced``), in which every class has the same weight,
however many cases it has. For the accuracy, this is the balanced accuracy (Brodersen et al. 2010, "The balanced
accuracy and its posterior distribution"): the mean of the recalls of the classes that have test cases. It is tested
as numbers, because a right answer counts more in a small class than in a large one.

Both tests assume independent cases. When cases depend on each other, as overlapping windows of one series do, the
p-values are too small.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.errors import UserError, of_system

_RESAMPLES, _SEED = 4999, 0
_SIGNS_AT_ONCE = 2**20  # sign assignments of the permutation test per block: bounds its memory
_CALLS, _SECONDS = 50, 3.0  # of the latency measurement, whichever ends first
_DETAIL = "details."
_LABELS = "labels"  # the detail that holds the class of each case, where cases have classes


@dataclass(frozen=True)
class Metric:
    """What a score means."""

    name: str  # such as "accuracy"; other names contain it, such as test_accuracy
    case: str  # what one test case is called; its plural ends in s
    higher_is_better: bool
    outcomes: Literal[
        "right or wrong", "numbers"
    ]  # what a case's value is; with ``balances``, it decides which paired test is used
    classes: bool = False  # the cases have classes, which evaluations hold in ``details["labels"]``
    significant: int = 4  # digits of a number that readers are shown
    balances: Metric | None = None  # the metric of which this one is the balanced form

    @property
    def own(self) -> Metric:
        """The task's own metric: this one, or the one that this one balances. Files use its name."""
        return self.balances or self

    @property
    def balanced(self) -> Metric | None:
        """The balanced form of the task's metric, such as balanced_accuracy; None where cases have no classes."""
        own = self.own
        return replace(own, name=f"balanced_{own.name}", balances=own) if own.classes else None

    @property
    def forms(self) -> tuple[Metric, ...]:
        """All metrics of the same answers: the task's own, and its balanced form if there is one."""
        return (self.own, self.balanced) if self.balanced else (self.own,)

    @property
    def test_name(self) -> str:
        """The name of a score on the test cases, in files and as a tag of a version: test_accuracy."""
        return f"test_{self.name}"

    def of(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation by this metric: its score, and one value per case. The mean of the values is the score.

        ``evaluation`` is one by the task's own metric, as tasks measure it.
        """
        return evaluation if self.balances is None else _balanced(evaluation)

    def score(self, evaluation: Evaluation) -> float:
        """The score by this metric."""
        return self.of(evaluation).score

    def gain(self, ours: float, theirs: float) -> float:
        """By how much ``ours`` is better than ``theirs``; negative when ``ours`` is worse."""
        return ours - theirs if self.higher_is_better else theirs - ours

    def better(self, ours: float, theirs: float) -> bool:
        """Whether ``ours`` is better than ``theirs``. NaN is never better."""
        return self.gain(ours, theirs) > 0

    def p_value(self, ours_N: NDArray[np.float64], theirs_N: NDArray[np.float64]) -> float:
        """The probability that chance alone makes a difference at least this large, in either direction.

        The arguments are the values per case of evaluations by this metric (``of``).
        """
        if self._counts_cases:
            return _mcnemar(ours_N > 0.5, theirs_N > 0.5)
        return _sign_flips(ours_N - theirs_N)

    @property
    def test(self) -> str:
        """The name of the paired test, as in "X gives p = 0.03"."""
        return "McNemar's exact test" if self._counts_cases else "a paired permutation test"

    @property
    def _counts_cases(self) -> bool:
        """Whether a case counts 1 or 0, and not what its class makes of it."""
        return self.outcomes == "right or wrong" and self.balances is None

    @property
    def words(self) -> str:
        """The metric's name as a sentence spells it."""
        return self.name.replace("_", " ")

    def text(self, score: float) -> str:
        """A score for readers: the percentage of right cases, or a number."""
        return f"{score:.2%}" if self.outcomes == "right or wrong" else self._number(score)

    def digits(self, score: float) -> str:
        """A score as logs and the gate's reasons show it: the bare number."""
        return f"{score:.4f}" if self.outcomes == "right or wrong" else self._number(score)

    def _number(self, score: float) -> str:
        return f"{score:.{self.significant}g}"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How one exported file does on the test cases, and what it costs."""

    score: float
    per_case: NDArray[np.float64]  # (N,): 1 or 0 for right or wrong, otherwise the metric's value
    cases_sha256: str  # of the test cases: evaluations with the same hash can be compared
    costs: Mapping[str, float] = field(
        default_factory=dict
    )  # latency_ms, size_bytes, params, macs, where known
    # Arrays for the task's own pages; ``labels`` (N,), the class of each case, is what a balanced metric reads.
    details: Mapping[str, NDArray] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes one safetensors file: the arrays, and the rest as JSON in its metadata."""
        from safetensors.numpy import save_file

        header = _Header(score=self.score, cases_sha256=self.cases_sha256, costs=dict(self.costs))
        details = {f"{_DETAIL}{name}": np.ascontiguousarray(array) for name, array in self.details.items()}
        arrays = {"per_case": np.ascontiguousarray(self.per_case, dtype=np.float64), **details}
        save_file(arrays, path, {"evaluation": header.model_dump_json()})

    @staticmethod
    def load(path: Path) -> Evaluation:
        """Reads what ``save`` wrote. Raises UserError when the file is missing or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                header = _Header.model_validate_json((file.metadata() or {})["evaluation"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - is no mapping
            per_case = arrays.pop("per_case")
        except FileNotFoundError:
            raise UserError(f"{path} is missing; run `dvc repro export`") from None
        except KeyError as error:
            raise UserError(f"{path} is damaged (it lacks {error}); run `dvc repro -f export`") from None
        except (SafetensorError, ValidationError, OSError) as error:
            known = of_system(error, path) if isinstance(error, OSError) else None
            reason = " ".join(str(error).split())[:200]
            raise known or UserError(f"{path} is damaged ({reason}); run `dvc repro -f export`") from None
        details = {name.removeprefix(_DETAIL): array for name, array in arrays.items()}
        return Evaluation(header.score, per_case, header.cases_sha256, header.costs, details)


class _Header(BaseModel):
    """The fields of a saved evaluation that are not arrays."""

    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")

    score: float
    cases_sha256: str
    costs: dict[str, float]


def latency_ms(call: Callable[[], object]) -> float:
    """Median milliseconds per call, over 50 calls or as many as fit into 3 seconds, after one warm-up call."""
    call()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not times or (len(times) < _CALLS and time.perf_counter() < end):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def _balanced(evaluation: Evaluation) -> Evaluation:
    """The same answers with the same weight for every class that has cases.

    Of N cases in K classes, a case of a class with n cases has the weight N / (K n). The mean of the weighted values is
    then the mean over the classes of their mean values. The score is computed exactly before it is rounded, so that two
    files that are equally good have equal scores.
    """
    _, places_N, counts_K = np.unique(evaluation.details[_LABELS], return_inverse=True, return_counts=True)
    sums_K = np.bincount(places_N, weights=evaluation.per_case)
    score = math.nan
    if np.isfinite(sums_K).all():
        means = (
            Fraction(total) / count for total, count in zip(sums_K.tolist(), counts_K.tolist(), strict=True)
        )
        score = float(sum(means) / len(counts_K))
    weights_N = len(places_N) / (len(counts_K) * counts_K[places_N])
    return replace(evaluation, score=score, per_case=weights_N * evaluation.per_case)


def _mcnemar(ours_N: NDArray[np.bool_], theirs_N: NDArray[np.bool_]) -> float:
    """The p-value of McNemar's exact test; 1 when there is no case that only one of the two got right."""
    from scipy.stats import (
        binomtest,
    )  # imported here because it takes most of a second, and only comparisons need it

    only_ours, only_theirs = int((ours_N & ~theirs_N).sum()), int((theirs_N & ~ours_N).sum())
    if only_ours + only_theirs == 0:
        return 1.0
    return float(binomtest(only_ours, only_ours + only_theirs).pvalue)


def _sign_flips(differences_N: NDArray[np.float64]) -> float:
    """The p-value of the paired permutation test of the mean difference.

    Differences of 0 are left out, because their sign changes nothing. So all signs can be tried more often.
    """
    from scipy.stats import permutation_test

    differences_N = differences_N[differences_N != 0]
    if len(differences_N) < 2:
        return 1.0  # with the other sign, the mean would be as far from 0

    def size_of_mean(ours: NDArray, theirs: NDArray, axis: int = -1) -> NDArray:
        return np.abs((ours - theirs).mean(axis=axis))

    # The absolute value makes the test two-sided, so that exchanging the two files does not change the p-value.
    found = permutation_test(
        (differences_N, np.zeros_like(differences_N)),
        size_of_mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=max(1, _SIGNS_AT_ONCE // len(differences_N)),
        alternative="greater",
        rng=_SEED,
    )
    return float(found.pvalue)
