"""compare.json: how the found cell did beside others, and what report, card and flows say about it.

A comparison belongs to a found cell, the data and the settings of the retraining. ``current`` finds the one that belongs
to what is in artifacts/ now, and no other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from stages import tasks
from stages.errors import UserError
from stages.evaluation import Metric
from stages.plumbing.files import ARTIFACTS, GENOTYPE_JSON, sha256_of
from stages.records import Record

if TYPE_CHECKING:
    from stages.params import Params

COMPARE = ARTIFACTS / "compare"
COMPARE_JSON = COMPARE / "compare.json"
TITLE = "Was the search worth it?"
NOT_COMPARED = "Not compared with random cells or with other networks."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ArmResult(_Part):
    """One network: its size, and its score per seed."""

    name: str
    kind: Literal["found", "random", "baseline"]
    network: dict[str, Any]  # what the task builds it from
    params: int
    macs: int | None = None
    latency_ms: float | None = None  # for one case
    mean: float  # of the test scores
    deviation: float | None = None  # of the test scores over the seeds; None: one seed
    test: list[float]  # by seed, in the order of ``seeds``
    valid: list[float]
    minutes: float  # of one training, on average


class Difference(_Part):
    """How much better the found cell is than something else; negative: worse. With its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


class RandomCells(_Part):
    """The random cells of a comparison, taken together."""

    count: int
    mean: float
    deviation: float | None = None  # between cells
    percentile: float  # how many percent of them the found cell beats
    relative_improvement: float  # of the found cell over their mean, in percent
    difference: Difference


class BestOf(_Part):
    """The best by validation of as many random cells as could be trained in the time of the search."""

    cells: int
    capped: bool  # the search's time would have paid for more than there are
    mean: float
    difference: Difference


class ComparisonRecord(Record):
    """compare.json"""

    identity: str
    metric: str  # the form of the task's metric that is compared
    seeds: list[int]
    epochs: int
    test_cases: int
    found: ArmResult
    others: list[ArmResult]
    random: RandomCells | None = None
    best_of: BestOf | None = None
    baselines: dict[str, Difference]
    search_minutes: float | None = None  # None: unknown
    measured_with: str | None = None  # what the latencies were measured with; None: they were not
    notices: list[str]

    @property
    def arms(self) -> list[ArmResult]:
        """All networks, the found one first."""
        return [self.found, *self.others]


def identity(params: Params) -> str:
    """The hash of what a comparison is about: found cell, data, and the settings of the retraining and of the space."""
    content = {
        "task": params.task,
        "genotype": sha256_of(GENOTYPE_JSON),
        "data": tasks.data(params.task).read_card().sha256,
        "retrain": {name: value for name, value in params.retrain.active().items() if name != "seed"},
        "precision": params.train.precision,
        "space": [params.search.space, params.search.active().get("exclude_none")],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def current(params: Params, metric: Metric) -> ComparisonRecord | None:
    """The comparison of the found cell in artifacts/ under today's settings; None when there is none."""
    if not COMPARE_JSON.is_file():
        return None
    try:
        record = ComparisonRecord.read(COMPARE_JSON, metric)
    except UserError:  # damaged, or written by another version of the code: the next comparison replaces it
        return None
    return record if record.identity == identity(params) else None


def form_of(record: ComparisonRecord, metric: Metric) -> Metric:
    """The form of the task's metric that a comparison is by."""
    return next(form for form in metric.forms if form.name == record.metric)


def sentences(record: ComparisonRecord, metric: Metric) -> list[str]:
    """The outcome in plain words, the answer first."""
    form = form_of(record, metric)
    said = [_answer(record)]
    seeds = f"{len(record.seeds)} training{'s' if len(record.seeds) != 1 else ''}"
    said.append(f"Found cell: test {form.words} {_spread(record.found, form)} ({seeds}).")
    if record.random is not None:
        cells = record.random
        said.append(
            f"{cells.count} random cell{'s' if cells.count != 1 else ''} of the same space: mean"
            f" {form.text(cells.mean)}; {_lead(cells.difference, form)}. It is better"
            f" than {cells.percentile:.0f}% of them, a relative improvement of {cells.relative_improvement:+.2f}%."
        )
    if record.best_of is not None:
        best = record.best_of
        cost = "as many as the search's time would pay for"
        if best.capped:
            cost = "fewer than the search's time would pay for"
        said.append(
            f"Best of {best.cells} random cell{'s' if best.cells != 1 else ''} by validation ({cost}): mean"
            f" {form.text(best.mean)}; {_lead(best.difference, form)}."
        )
    for arm in record.others:
        if arm.kind == "baseline":
            difference = record.baselines[arm.name]
            said.append(f"{arm.name}: {_spread(arm, form)}; {_lead(difference, form)}.")
    return said + [f"{notice[:1].upper()}{notice[1:]}." for notice in record.notices]


def _answer(record: ComparisonRecord) -> str:
    """Whether the search was worth it, as far as the intervals tell."""
    rival = record.best_of or record.random
    if rival is None:
        return "Nothing was compared: there are no random cells."
    what = "the best of the random cells at equal cost" if record.best_of else "random cells"
    if not rival.difference.decided:
        return f"This comparison does not show that the search found a better cell than {what}."
    better = rival.difference.mean > 0
    return f"The search was{'' if better else ' not'} worth it: its cell is {'better' if better else 'worse'} than {what}."


def _spread(arm: ArmResult, form: Metric) -> str:
    """Mean and standard deviation."""
    return form.text(arm.mean) + ("" if arm.deviation is None else f" ± {_size(arm.deviation, form)}")


def _lead(difference: Difference, form: Metric) -> str:
    """A difference with its interval, such as "the found cell's lead is +0.31 points (95% interval +0.10 to +0.52)"."""
    unit = " points" if form.outcomes == "right or wrong" else ""
    mean, low, high = (
        _size(value, form, "+") for value in (difference.mean, difference.low, difference.high)
    )
    chance = "" if difference.decided else ", so this may be chance"
    return f"the found cell's lead is {mean}{unit} (95% interval {low} to {high}{chance})"


def _size(value: float, form: Metric, sign: str = "") -> str:
    """A difference or a deviation of scores: in percentage points where scores are percentages."""
    return f"{100 * value:{sign}.2f}" if form.outcomes == "right or wrong" else f"{value:{sign}.3g}"


def table(record: ComparisonRecord, metric: Metric) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The heads and the rows of a table of all networks."""
    form = form_of(record, metric)
    heads = ["network", f"test {form.words}", "deviation", "parameters", "MACs", "ms", "minutes per training"]
    rows = [
        [
            arm.name,
            form.text(arm.mean),
            "" if arm.deviation is None else _size(arm.deviation, form),
            f"{arm.params:,}",
            "" if arm.macs is None else f"{arm.macs:,}",
            "" if arm.latency_ms is None else f"{arm.latency_ms:.3g}",
            f"{arm.minutes:.2g}",
        ]
        for arm in record.arms
    ]
    return heads, rows
