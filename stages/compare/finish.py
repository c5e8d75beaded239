"""Compares the results of all trainings of the plan and writes artifacts/compare: ``python -m stages.compare.finish``.

compare.json has the numbers, arms.csv one row per network and seed, and the pictures show accuracy against costs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages import tasks
from stages.compare import statistics
from stages.compare.jobs import Plan, PlannedArm, is_done
from stages.compare.pictures import draw
from stages.compare.spent import search_minutes
from stages.compare.train import TrainingResult, result_of
from stages.comparison import (
    COMPARE,
    COMPARE_JSON,
    ArmResult,
    BestOf,
    ComparisonRecord,
    Difference,
    RandomCells,
    identity,
    sentences,
)
from stages.errors import UserError
from stages.evaluation import Evaluation, Metric
from stages.plumbing.files import read_json, write_json, write_rows
from stages.plumbing.runtime import run

if TYPE_CHECKING:
    from stages.params import Params

_LATENCIES = COMPARE / "latencies.json"
_ROWS, _PICTURE = COMPARE / "arms.csv", COMPARE / "scores.png"

_RANDOM, _BEST = "random cells", "best of random cells"

Values = Mapping[str, NDArray[np.float64]]  # name of a network -> its value (S, N) per seed and test case
Results = Mapping[
    str, Sequence[TrainingResult]
]  # name of a network -> its trainings in the order of the seeds


def main(params: Params, minutes: str | None = None) -> None:
    plan, metric = Plan.read(), params.registry.judged_by(tasks.metric(params))
    if plan.identity != identity(params):
        raise UserError(
            "genotype.json, the data or params.yaml has changed since the comparison began; start it again"
        )
    results, values = read(plan, metric)
    latencies = timed(params, plan)
    arms = [arm_of(arm, results[arm.name], values[arm.name], metric, latencies) for arm in plan.arms]
    spent = float(minutes) if minutes else search_minutes()
    record = compared(params, plan, arms, values, metric, spent)
    write_rows(_ROWS, rows(plan, results, arms, metric))
    draw(_PICTURE, record, metric)
    record.write(COMPARE_JSON, metric)
    for sentence in sentences(record, metric):
        print(f"compare: {sentence}")


def read(plan: Plan, metric: Metric) -> tuple[Results, Values]:
    """The results of all trainings. Raises UserError when one is missing, or when their test cases differ."""
    trainings = plan.trainings()
    if missing := sum(not is_done(key) for *_, key in trainings):
        raise UserError(f"{missing} of {len(trainings)} trainings are missing; run `make compare`")
    results: dict[str, list[TrainingResult]] = {arm.name: [] for arm in plan.arms}
    answers: dict[str, list[Evaluation]] = {arm.name: [] for arm in plan.arms}
    for arm, _, key in trainings:
        result, evaluation = result_of(key, metric)
        results[arm.name].append(result)
        answers[arm.name].append(metric.of(evaluation))
    if len({evaluation.cases_sha256 for some in answers.values() for evaluation in some}) > 1:
        raise UserError(
            "the trainings were tested on different cases; delete artifacts/compare and start again"
        )
    return results, {
        name: np.stack([evaluation.per_case for evaluation in some]) for name, some in answers.items()
    }


def arm_of(
    arm: PlannedArm,
    results: Sequence[TrainingResult],
    values_SN: NDArray[np.float64],
    metric: Metric,
    latencies: Mapping[str, float],
) -> ArmResult:
    """What is said about one network."""
    test = values_SN.mean(axis=1).tolist()
    return ArmResult(
        name=arm.name,
        kind=arm.kind,
        network=arm.network,
        params=arm.params if arm.params is not None else results[0].params,
        macs=arm.macs,
        latency_ms=latencies.get(arm.name),
        mean=fmean(test),
        deviation=statistics.deviation(test),
        test=test,
        valid=[result.validated(metric) for result in results],
        minutes=fmean(result.minutes for result in results),
    )


def compared(
    params: Params,
    plan: Plan,
    arms: Sequence[ArmResult],
    values: Values,
    metric: Metric,
    spent: float | None,
) -> ComparisonRecord:
    """All comparisons. ``spent`` are the minutes of the search, None where they are unknown."""
    found, *others = arms
    cells = [arm for arm in others if arm.kind == "random"]
    by_hand = [arm.name for arm in others if arm.kind == "baseline"]
    rivals = {name: values[name][None] for name in by_hand}
    affordable = some = 0
    if cells:
        rivals[_RANDOM] = np.stack([values[arm.name] for arm in cells])
    if cells and spent is not None:
        affordable = statistics.affordable(spent, fmean(arm.minutes for arm in cells))
        some = min(affordable, len(cells))
        rivals[_BEST] = best_values(cells, rivals[_RANDOM], some, metric)[None]
    found_values = values[found.name]
    gains = {name: _gains(metric, found_values, theirs) for name, theirs in rivals.items()}
    leads = {name: Difference(**asdict(interval)) for name, interval in statistics.intervals(gains).items()}
    part = tasks.speed(params.task)
    return ComparisonRecord(
        identity=plan.identity,
        metric=metric.name,
        seeds=plan.seeds,
        epochs=params.retrain.epochs,
        test_cases=found_values.shape[1],
        found=found,
        others=others,
        random=random_cells(found, cells, metric, leads[_RANDOM]) if cells else None,
        best_of=BestOf(
            cells=some,
            capped=affordable > some,
            mean=float(rivals[_BEST].mean()),
            difference=leads[_BEST],
        )
        if some
        else None,
        baselines={name: leads[name] for name in by_hand},
        search_minutes=spent,
        measured_with=None if part is None else part.measured_with(),
        notices=[*plan.notices, *left_out(params, cells, spent)],
    )


def left_out(params: Params, cells: Sequence[ArmResult], spent: float | None) -> list[str]:
    """What a comparison cannot say, and why."""
    notices = []
    if cells and spent is None:
        notices.append(
            "MLflow has no run of the search that tells how long it took, so no random cells are compared at"
            " equal cost; --search-minutes gives the time"
        )
    if tasks.speed(params.task) is None:
        notices.append(f"the task {params.task} does not measure latencies")
    return notices


def random_cells(
    found: ArmResult, cells: Sequence[ArmResult], metric: Metric, difference: Difference
) -> RandomCells:
    """The random cells taken together."""
    means = [arm.mean for arm in cells]
    mean = fmean(means)
    return RandomCells(
        count=len(cells),
        mean=mean,
        deviation=statistics.deviation(means),
        percentile=statistics.percentile(
            metric.gain(found.mean, 0), [metric.gain(other, 0) for other in means]
        ),
        relative_improvement=100 * metric.gain(found.mean, mean) / abs(mean) if mean else 0.0,
        difference=difference,
    )


def best_values(
    cells: Sequence[ArmResult], values_KSN: NDArray[np.float64], some: int, metric: Metric
) -> NDArray[np.float64]:
    """The values (S, N) of the best by validation of ``some`` cells, seed by seed, averaged over which they are."""
    chances_SK = np.stack(
        [
            statistics.chance_to_be_best([metric.gain(arm.valid[seed], 0) for arm in cells], some)
            for seed in range(values_KSN.shape[1])
        ]
    )
    return np.einsum("sk,ksn->sn", chances_SK, values_KSN)


def _gains(metric: Metric, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    return ours - theirs if metric.higher_is_better else theirs - ours


def timed(params: Params, plan: Plan) -> Mapping[str, float]:
    """The latency of every network, in milliseconds; empty where the task does not measure latencies.

    All are measured anew when one of them is new, because the load of the machine has changed in the meantime.
    """
    part = tasks.speed(params.task)
    if part is None:
        return {}
    networks = {arm.name: arm.network for arm in plan.arms}
    content = json.dumps([networks, part.measured_with(), plan.identity], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()
    if _LATENCIES.is_file() and (known := read_json(_LATENCIES)).get("key") == key:
        return known["milliseconds"]
    taken = dict(part.latencies(params, networks))
    write_json(_LATENCIES, {"key": key, "measured_with": part.measured_with(), "milliseconds": taken})
    return taken


def rows(plan: Plan, results: Results, arms: Sequence[ArmResult], metric: Metric) -> list[dict[str, Any]]:
    """One row per network and seed."""
    return [
        {
            "network": arm.name,
            "kind": arm.kind,
            "seed": seed,
            f"test_{metric.name}": arm.test[place],
            f"valid_{metric.name}": arm.valid[place],
            "best_epoch": results[arm.name][place].best_epoch,
            "params": arm.params,
            "macs": arm.macs,
            "latency_ms": arm.latency_ms,
            "minutes": results[arm.name][place].minutes,
            "run_id": results[arm.name][place].run_id,
        }
        for arm in arms
        for place, seed in enumerate(plan.seeds)
    ]


if __name__ == "__main__":
    sys.exit(run("compare-finish", main, minutes="the minutes of the search, if MLflow does not know them"))
