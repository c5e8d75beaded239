"""What the gate judges, measured here and now: challenger and champion on the same test cases, by the same clock."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from stages.errors import UserError
from stages.evaluation import Evaluation, latency_ms
from stages.params import RegistryParams
from stages.plumbing.files import EVALUATION, EXPORT, sha256_of
from stages.records import ExportRecord
from stages.registry.gate import Budget, Champion, Evidence, Judgement, decide
from stages.registry.record import Int8
from stages.registry.task import Task
from stages.registry.verdict import within
from stages.registry.versions import download


@dataclass(frozen=True, eq=False)
class Challenger:
    """The exported file that may become champion."""

    file: Path
    evaluation: Evaluation  # as export measured it
    exported: ExportRecord
    identical: bool  # the registered file answers bit for bit as the exported one


def challenger(task: Task, version: ModelVersion, exported: ExportRecord) -> Challenger:
    """The exported file as export measured it, and whether the registered version is this file."""
    file = EXPORT / exported.file
    return Challenger(file, Evaluation.load(EVALUATION), exported, _identical(task, version, file))


def judge_of(
    mlflow: MlflowClient,
    task: Task,
    challenger: Challenger,
    limits: RegistryParams,
    barred: str | None,
    budget: Budget | None = None,
    asks: str | None = None,
) -> Callable[[ModelVersion | None], Judgement]:
    """A judge who compares the challenger with the champion that it is given.

    ``barred`` is a reason to refuse the challenger whatever the comparison says: it was rolled back. ``budget`` is what
    the limits' latency is about, if it is not that of one case. ``asks`` is why a person has the last word, if one has.
    """

    def judge(version: ModelVersion | None) -> Judgement:
        champion = None if version is None else _champion(mlflow, task, version, challenger)
        evidence = Evidence(
            metric=task.metric,
            file=challenger.file.name,
            challenger=_timed(task, challenger.file, challenger.evaluation),
            champion=champion,
            largest_difference=challenger.exported.largest_difference,
            disagreements=challenger.exported.disagreements,
            identical=challenger.identical,
            budget=budget,
        )
        judgement = replace(decide(evidence, limits), asks=asks)
        return judgement if barred is None else replace(judgement, refusals=(barred, *judgement.refusals))

    return judge


def int8(task: Task, challenger: Challenger, limit: float) -> Int8 | None:
    """Whether the version gets the quantized file, by how much worse its score is here and now; None without one."""
    if (exported := challenger.exported.int8) is None:
        return None
    metric = task.metric
    score = metric.score(task.evaluate(challenger.file.with_name(exported.file)))
    drop = metric.gain(metric.score(challenger.evaluation), score)
    included = within(drop, limit)
    state = "within" if included else "more than"
    reason = (
        f"int8 costs {metric.digits(drop)} of test {metric.words}, {state} registry.max_int8_drop ({limit:g})"
    )
    known = {"score": score, "drop": drop, "included": included, "reason": reason}
    names = {f"test_{metric.name}", f"{metric.name}_drop"}  # as export measured them
    others = {name: value for name, value in exported.model_dump().items() if name not in names}
    return Int8.model_validate({**others, **known})


def _champion(mlflow: MlflowClient, task: Task, version: ModelVersion, challenger: Challenger) -> Champion:
    """The champion, downloaded and run on the challenger's test cases, or why that is impossible."""
    number, cases_sha256 = int(version.version), challenger.evaluation.cases_sha256
    if version.tags.get("test_sha256") != cases_sha256:
        trouble = f"the champion, version {number}, was tested on other {task.metric.case}s"
        return Champion(number, None, trouble)
    try:
        with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
            file = download(version, challenger.file.name, Path(folder))
            evaluation = _timed(task, file, task.evaluate(file))
    except UserError:  # the test cases are missing
        raise
    except Exception as error:  # of the artifact store, or of the task's runtime
        mlflow.get_model_version(version.name, str(number))  # raises when the server cannot be reached
        reason = " ".join(str(error).split())[:200]
        return Champion(number, None, f"the champion, version {number}, cannot be run ({reason})")
    if evaluation.cases_sha256 != cases_sha256:
        raise UserError(f"the test {task.metric.case}s have changed since the export; run `dvc repro export`")
    if not math.isfinite(task.metric.score(evaluation)):  # a person made it champion
        trouble = f"the test {task.metric.words} of the champion, version {number}, is not a number"
        return Champion(number, None, trouble)
    return Champion(number, evaluation)


def _identical(task: Task, version: ModelVersion, file: Path) -> bool:
    """Whether the registered file answers every test case bit for bit as the exported one."""
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
        registered = download(version, file.name, Path(folder))
        if sha256_of(registered) == sha256_of(file):
            return True
        try:
            return _same(task.evaluate(registered), task.evaluate(file))
        except UserError:  # the test cases are missing
            raise
        except Exception:  # of the task's runtime; ONNX Runtime's exceptions share no base class
            return False  # the registered file cannot even be loaded


def _timed(task: Task, file: Path, evaluation: Evaluation) -> Evaluation:
    """The evaluation with the latency on this machine, now, where there is one."""
    if (call := task.one_call(file)) is None:
        return evaluation
    taken = latency_ms(call)
    return replace(evaluation, costs={**evaluation.costs, "latency_ms": taken})


def _same(ours: Evaluation, theirs: Evaluation) -> bool:
    """Whether two evaluations agree in every answer."""
    return (
        np.array_equal(ours.per_case, theirs.per_case)
        and ours.details.keys() == theirs.details.keys()
        and all(np.array_equal(array, theirs.details[name]) for name, array in ours.details.items())
    )
