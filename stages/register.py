"""register: adds the exported file to the MLflow registry as a version, which becomes champion if it passes the gate.

The gate (stages/registry/gate.py) compares the new version with the present champion on the same test cases. The
verdict is kept with the version, in artifacts/registry.json and in the model card.

DVC calls this stage every time, because only the registry knows what it holds: a clone that restored its artifacts,
or a registry that was emptied, still ends with a registered version. When the network has a version already, whoever
exported it, no other is made, and the decision about it holds. The exceptions are a refused version, which is judged
again when the champion or the gate's settings have changed, and test cases that have changed. A version that was
rolled back stays so until a person makes it champion.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from stages import comparison, tasks
from stages.errors import UserError
from stages.evaluation import Evaluation, Metric
from stages.found_latency import read_found
from stages.params import Params, RegistryParams
from stages.plumbing import limits
from stages.plumbing.files import (
    CARD,
    EVALUATION,
    EXPORT,
    GENOTYPE,
    KNOWN,
    REGISTRY,
    SEARCH,
    file_sha256,
    read_json,
    write_text,
)
from stages.plumbing.runtime import run
from stages.plumbing.settings import PARAMS_FILE
from stages.plumbing.tracking import StageRun, client, reported, stage_run
from stages.records import DataCard, ExportRecord, SearchSummary
from stages.registry import budget, known, lineage, uses, verdict, versions
from stages.registry.asking import reason_to_ask
from stages.registry.candidate import candidate
from stages.registry.promotion import (
    CHALLENGER,
    REPORT,
    SOUND,
    alone,
    promote,
    score_tag,
    succeed,
)
from stages.registry.record import Origin, RegistryRecord
from stages.registry.task import Task, task_of

_KNOWN = "known_sha256"  # tag of a version: which known.json is beside it


def main(params: Params) -> None:
    task, name = task_of(params), params.registry.name
    exported = ExportRecord.read(EXPORT / "export.json", task.metric)
    file = EXPORT / exported.file
    if not file.is_file():
        raise UserError(f"{file} is missing; `dvc repro export` makes it")
    cases = Evaluation.load(EVALUATION).cases_sha256
    mlflow, asks = client(), reason_to_ask(params.registry)
    gate = budget.limits_of(params, read_found(task.metric))
    with reported():
        version = versions.find(mlflow, name, file)
    candidate(file, cases)
    if version is not None and known.decision_holds(
        mlflow, version, task.metric, gate, cases, asks=asks is not None
    ):
        repeat(mlflow, version, task, params, exported)
        return
    check_export(exported)
    data = tasks.data(params.task).read_card()
    with stage_run("register", params.registry.active()) as tracked, reported():
        tracked.dataset(data, params.data.root)
        record, notices = register(mlflow, tracked, task, params, exported, data, version)
    print(f"register: {name} version {record.version}: {record.reason}")
    if record.int8 and not record.int8.included:
        print(f"register: registered without int8: {record.int8.reason}")
    for notice in notices:
        print(f"register: notice: {notice}")


def repeat(
    mlflow: MlflowClient, version: ModelVersion, task: Task, params: Params, exported: ExportRecord
) -> None:
    """Registers nothing, because the network has its version. Adds what only this run has: its runs, and an int8 file."""
    name = f"{version.name}/{version.version}"
    with reported():
        for run_id in filter(None, lineage.runs_before(mlflow).values()):
            lineage.link(mlflow, run_id, name)
    if known.lacks(version, exported.int8):
        check_export(exported)
        with stage_run("register", params.registry.active()), reported():
            version = add_int8(mlflow, version, task, exported, params.registry)
    with reported():
        add_known(mlflow, version)
    with reported(), alone():
        succession = succeed(mlflow, version.name, version.tags["test_sha256"], task.metric)
    known.restore(mlflow, version)
    add_comparison(mlflow, version, params, task.metric)
    known.tell(mlflow, version, exported.file)
    if succession is not None:
        print(f"register: notice: {succession}")
    known.tell_int8(version, exported.int8, params.registry)


def add_comparison(mlflow: MlflowClient, version: ModelVersion, params: Params, metric: Metric) -> None:
    """Puts a comparison that was made since the version was registered on its card."""
    if (compared := comparison.current(params, metric)) is None:
        return
    from stages.registry import card

    before = CARD.read_text(encoding="utf-8")
    if (text := card.with_comparison(before, compared, metric)) == before:
        return
    write_text(CARD, text)
    with reported():
        versions.attach(mlflow, version, [CARD])
        mlflow.update_model_version(version.name, str(version.version), card.description(text))
    print(f"register: the card of version {version.version} has the comparison")


def add_int8(
    mlflow: MlflowClient, version: ModelVersion, task: Task, exported: ExportRecord, limits: RegistryParams
) -> ModelVersion:
    """Puts the int8 file into a version that was registered without one, if it costs little enough."""
    from stages.registry import evidence  # scikit-learn and torch, which most calls do not need

    file, evaluation = EXPORT / exported.file, Evaluation.load(EVALUATION)
    challenger = evidence.Challenger(file, evaluation, exported, identical=True)
    int8 = evidence.int8(task, challenger, limits.max_int8_drop)
    assert int8 is not None, "export.json has a section int8"
    versions.attach(mlflow, version, [EXPORT / int8.file] if int8.included else [])
    record = known.record_of(version).model_copy(update={"int8": int8})
    set_tags(mlflow, version, {"int8": verdict.tags(record)["int8"], REPORT: json.dumps(record.model_dump())})
    print(
        f"register: version {version.version} gets {int8.file}: {int8.reason}"
        if int8.included
        else f"register: version {version.version} stays without int8: {int8.reason}"
    )
    return mlflow.get_model_version(version.name, str(version.version))


def add_known(mlflow: MlflowClient, version: ModelVersion) -> None:
    """Puts known.json, which the server reads, beside the version, unless it is there or the task has none."""
    if KNOWN.is_file() and version.tags.get(_KNOWN) != (sha256 := file_sha256(KNOWN)):
        versions.attach(mlflow, version, [KNOWN])
        set_tags(mlflow, version, {_KNOWN: sha256})


def check_export(exported: ExportRecord) -> None:
    """Raises UserError unless export.json describes exactly the files beside it."""
    if exported.model_sha256 != file_sha256(EXPORT / exported.file):
        raise UserError(
            f"{EXPORT / 'export.json'} describes another {exported.file}; run `dvc repro -f export`"
        )
    if (int8 := exported.int8) is not None:
        quantized = EXPORT / int8.file
        if not quantized.is_file() or file_sha256(quantized) != int8.sha256:
            raise UserError(
                f"{quantized} is missing or is not the file that export.json describes; run `dvc repro -f export`"
            )


def register(
    mlflow: MlflowClient,
    tracked: StageRun,
    task: Task,
    params: Params,
    exported: ExportRecord,
    data: DataCard,
    version: ModelVersion | None,
) -> tuple[RegistryRecord, Sequence[str]]:
    """Makes the version if there is none, judges it and records the verdict. The tag ``report`` is written last.

    Also returns what a user should know about the version, as its card says it.
    """
    name, file = params.registry.name, EXPORT / exported.file
    origin = lineage.origin(mlflow, exported.model_sha256, data.sha256, tracked.id)
    if version is None:
        version = versions.make(mlflow, tracked, name, file, task.example(), origin)
    else:  # its file may be an older export of the same network
        origin = origin.model_copy(update={"model_sha256": versions.stored_sha256(version, file.name)})
    record, notices = judged(mlflow, version, task, params, exported, data, origin)
    for run_id in filter(None, origin.runs.values()):
        lineage.link(mlflow, run_id, f"{name}/{version.version}")
    record.write(REGISTRY)
    content = record.model_dump()
    numbers = {name: content.get(name) for name in (*map(score_tag, task.metric.forms), "version")}
    tracked.metrics({metric: value for metric, value in numbers.items() if value is not None})
    tracked.artifacts(REGISTRY, CARD)
    set_tags(mlflow, version, {REPORT: json.dumps(record.model_dump())})
    return record, notices


def judged(
    mlflow: MlflowClient,
    version: ModelVersion,
    task: Task,
    params: Params,
    exported: ExportRecord,
    data: DataCard,
    origin: Origin,
) -> tuple[RegistryRecord, Sequence[str]]:
    """Puts the version through the gate, promotes it if it passes, and writes the card."""
    from stages.registry import card, evidence  # scikit-learn and torch, which most calls do not need

    name, number, found = version.name, str(version.version), read_found(task.metric)
    limits, asks = budget.limits_of(params, found), reason_to_ask(params.registry)
    for tag in (REPORT, "refused"):  # of an earlier judgement
        mlflow.delete_model_version_tag(name, number, tag)
    with alone():
        challenger = evidence.challenger(task, version, exported)
        versions.attach_answers(mlflow, version, challenger.file, task.example())
        set_tags(mlflow, version, version_tags(task, params, exported, origin))
        scores = {score_tag(form): str(form.score(challenger.evaluation)) for form in task.metric.forms}
        set_tags(mlflow, version, {**scores, "test_sha256": challenger.evaluation.cases_sha256})
        int8 = evidence.int8(task, challenger, limits.max_int8_drop)
        versions.attach(mlflow, version, [EXPORT / int8.file] if int8 and int8.included else [])
        add_known(mlflow, version)
        mlflow.set_registered_model_alias(name, CHALLENGER, number)
        cases = challenger.evaluation.cases_sha256
        succession = succeed(mlflow, name, cases, task.metric, newcomer=number)
        timed = budget.measured(params, found, challenger.file)
        judge = evidence.judge_of(mlflow, task, challenger, limits, verdict.barred(version), timed, asks)
        judgement, champion = promote(mlflow, name, number, judge, task.metric)
        networks = uses.count(mlflow, name, candidate(challenger.file, cases).network_sha256, cases)
        record = verdict.record(
            judgement,
            name,
            int(number),
            champion,
            origin=origin,
            measures={**task.measures(challenger.evaluation), **budget.measures(timed)},
            int8=int8,
            limits=limits,
            test_uses=networks,
        )
        sound = {SOUND: "yes" if judgement.sound and asks is None else "no"}
        set_tags(mlflow, version, {**verdict.tags(record), **sound, **scores})  # scores with all digits
        about = task.card(challenger.evaluation, params)
        compared = comparison.current(params, task.metric)
        used = uses.notice(networks, limits.max_test_uses, task.metric)
        text = card.document(record, judgement, about, exported, data, compared, used)
        write_text(CARD, text)
        versions.attach(mlflow, version, [CARD, *card.pictures(text), *files_to_repeat_the_run()])
        mlflow.update_model_version(name, number, card.description(text))
    return record, [*about.notices, *filter(None, (succession, used))]


def version_tags(task: Task, params: Params, exported: ExportRecord, origin: Origin) -> dict[str, str]:
    """The tags of a version besides the verdict: its origin and its properties."""
    return {
        "discretization_gap": str(
            SearchSummary.read(SEARCH / "summary.json", task.metric).discretization_gap
        ),
        **task.version_tags(),
        "genotype": json.dumps(read_json(GENOTYPE / "genotype.json")),
        "settings": json.dumps(params.of_results()),
        "params": str(exported.params),
        **({} if exported.macs is None else {"macs": str(exported.macs)}),
        "latency_ms": json.dumps(exported.latency_ms),
        **lineage.tags(origin),
    }


def set_tags(mlflow: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Sets tags of a version. A value that is too long for a tag goes into a file of the version, except the record."""
    for name, value in tags.items():
        kept = value
        if len(value) > limits.VERSION_TAG and name != REPORT:
            with limits.in_file(name, value) as file:
                versions.attach(mlflow, version, [file])
            kept = limits.beginning(name, value)
        mlflow.set_model_version_tag(version.name, str(version.version), name, kept)


def files_to_repeat_the_run() -> list[Path]:
    return [path for path in (lineage.DVC_LOCK, PARAMS_FILE) if path.exists()]


if __name__ == "__main__":
    sys.exit(run("register", main))
