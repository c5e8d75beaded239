"""register: the exported network as a new version in the MLflow registry, ``champion`` if it passes the gate.

The gate (``_gate.py``) compares it with the present champion on the same test images, here and now. Whatever it says is
kept with the version, in artifacts/registry.json and in the model card.

DVC calls this stage every time, for only the registry knows what is in it: a clone that restored its artifacts, or a
registry that was emptied, still ends with a registered version. When the version is there, nothing changes, unless it
was refused and the champion or the gate's settings are others now: then it is judged again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray

from stages.errors import UserError
from stages.images.scores import Scores, TestSet, answers, calibration, read_test_set, score
from stages.params import Params, RegistryParams
from stages.plumbing.files import (
    CARD,
    DATA,
    EXPORT,
    GENOTYPE,
    REGISTRY,
    RETRAIN,
    SEARCH,
    SEARCH_RESULTS,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from stages.plumbing.runtime import run
from stages.plumbing.settings import PARAMS_FILE
from stages.plumbing.tracking import (
    StageRun,
    client,
    git_commit,
    reported,
    run_that_made,
    stage_run,
    tracking_uri,
)
from stages.registry.gate import Champion, Evidence, Judgement, accuracies, comparison, decide
from stages.registry.promotion import CHALLENGER, CHAMPION, REPORT, WITHDRAWN, alone, find_alias, promote

MODEL, INT8 = EXPORT / "model.onnx", EXPORT / "model.int8.onnx"
DVC_LOCK = Path("dvc.lock")
_INPUT_EXAMPLES = 2  # images kept with the model to show what it takes
_IDENTICAL = 64  # images on which the registered file must answer bit for bit as the exported one


def main(params: Params) -> None:
    if not MODEL.is_file():
        raise UserError(f"{MODEL} is missing; `dvc repro export` makes it")
    name, sha256 = params.registry.name, sha256_of(MODEL)
    mlflow = client()
    version = registered(mlflow, name, sha256)
    if version is not None and stands(mlflow, version, params.registry):
        restore(version)
        tell_state(mlflow, version, params.registry)
        return
    exported = read_export(sha256)
    with stage_run("register", params.registry.model_dump()) as tracked, reported():
        tracked.dataset(read_json(DATA / "data.json"), params.data.root)
        origin = lineage(mlflow, sha256, tracked.id)
        version = version or log_version(mlflow, tracked, name, origin)
        report = judged(mlflow, version, params, exported, origin)
        for run_id in filter(None, origin["runs"].values()):
            link(mlflow, run_id, f"{name}/{version.version}")
        write_json(REGISTRY, report)
        tracked.metrics({"test_accuracy": report["test_accuracy"], "version": report["version"]})
        tracked.artifacts(REGISTRY, CARD)
        mlflow.set_model_version_tag(
            name, str(version.version), REPORT, json.dumps(report)
        )  # the last: it is complete
    print(f"register: {name} version {version.version}: {report['reason']}")
    if report["int8"] and not report["int8"]["included"]:
        print(f"register: registered without int8: {report['int8']['reason']}")


# --- What is there already ---


def registered(mlflow: MlflowClient, name: str, sha256: str) -> ModelVersion | None:
    """The version of this very network, if there is one; one whose registration was completed comes first."""
    with reported():
        found = mlflow.search_model_versions(f"name = '{name}' AND tags.model_sha256 = '{sha256}'")
    return max(found, key=lambda version: (REPORT in version.tags, int(version.version)), default=None)


def stands(mlflow: MlflowClient, version: ModelVersion, limits: RegistryParams) -> bool:
    """Whether what was decided of this version still holds. A person's rollback holds until a person revokes it."""
    if REPORT not in version.tags:
        return False
    report = json.loads(version.tags[REPORT])
    if report["promoted"] or WITHDRAWN in version.tags:
        return True
    with reported():
        champion = find_alias(mlflow, version.name, CHAMPION)
    same_champion = report["champion_after"] == (int(champion.version) if champion else None)
    return same_champion and report["gate"] == gate_settings(limits)


def restore(version: ModelVersion) -> None:
    """Brings back the artifacts of a registration that this workspace has not, or has of another version."""
    if not REGISTRY.exists() or read_json(REGISTRY).get("version") != int(version.version):
        write_json(REGISTRY, json.loads(version.tags[REPORT]))
        CARD.unlink(missing_ok=True)
    if not CARD.exists():
        with reported():
            download(version, CARD.name, CARD.parent)


def tell_state(mlflow: MlflowClient, version: ModelVersion, limits: RegistryParams) -> None:
    """Says that nothing was done, and why."""
    with reported():
        champion = find_alias(mlflow, version.name, CHAMPION)
    is_champion = champion is not None and champion.version == version.version
    state = "the champion" if is_champion else f"champion is {champion.version if champion else 'none'}"
    print(f"register: {version.name} version {version.version} is this network already ({state})")
    int8 = json.loads(version.tags[REPORT])["int8"]
    if int8 and int8["included"] != within(int8["accuracy_drop"], limits.max_int8_drop):
        print(
            f"register: registry.max_int8_drop is {limits.max_int8_drop:g}, but version {version.version} was registered"
            f" {'with' if int8['included'] else 'without'} int8 under another; delete it to have it registered anew"
        )


def read_export(sha256: str) -> dict[str, Any]:
    """export.json, which must speak of this very file. Raises UserError otherwise."""
    exported = read_json(EXPORT / "export.json")
    if exported["model_sha256"] != sha256:
        raise UserError(f"{EXPORT / 'export.json'} is about another {MODEL.name}; run `dvc repro -f export`")
    if (int8 := exported.get("int8")) and (not INT8.is_file() or sha256_of(INT8) != int8["sha256"]):
        raise UserError(f"{INT8} is missing or not what export.json says; run `dvc repro -f export`")
    return exported


# --- Where it comes from, and where it leads ---


def lineage(mlflow: MlflowClient, sha256: str, run_id: str) -> dict[str, Any]:
    """What the version was made from: code, parameters, data, the runs that made it."""
    return {
        "model_sha256": sha256,
        "data_sha256": read_json(DATA / "data.json")["sha256"],
        "dvc_lock_sha256": file_sha256(DVC_LOCK),
        "git_commit": git_commit(),
        "prefect_flow_run": os.environ.get("MSDARTS_FLOW_RUN"),
        "runs": {
            "search": run_that_made(mlflow, *SEARCH_RESULTS),
            "retrain": run_that_made(mlflow, RETRAIN),
            "export": run_that_made(mlflow, EXPORT),
            "register": run_id,
        },
    }


def file_sha256(path: Path) -> str | None:
    """As ``sha256sum`` prints it; None where there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def link(mlflow: MlflowClient, run_id: str, version: str) -> None:
    """Tags a run with the versions it led to: the other end of a version's ``run_`` tags."""
    before = mlflow.get_run(run_id).data.tags.get("registered_as", "").split()
    if version not in before:
        mlflow.set_tag(run_id, "registered_as", " ".join([*before, version]))


def version_tags(params: Params, exported: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, str]:
    """What a version carries besides the verdict: where it came from and what it is."""
    settings = params.model_dump(mode="json", exclude={"serve"})
    return {
        "discretization_gap": str(read_json(SEARCH / "summary.json")["discretization_gap"]),
        "classes": json.dumps(read_json(DATA / "data.json")["classes"]),
        "genotype": json.dumps(read_json(GENOTYPE / "genotype.json")),
        "settings": json.dumps(settings),
        "params": str(exported["params"]),
        "macs": str(exported["macs"]),
        "latency_ms": json.dumps(exported["latency_ms"]),
        **{key: str(value) for key, value in origin.items() if value is not None and key != "runs"},
        **{f"run_{stage}": run_id for stage, run_id in origin["runs"].items() if run_id},
    }


# --- The registry ---


def log_version(
    mlflow: MlflowClient, tracked: StageRun, name: str, origin: Mapping[str, Any]
) -> ModelVersion:
    """Logs the model with signature and input example, and registers it under its hash.

    What it needs is imported here: most calls of the stage register nothing, and should be quick.
    """
    import mlflow as fluent
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.onnx import log_model
    from mlflow.types import Schema, TensorSpec

    images = np.load(DATA / "test_images.npy", mmap_mode="r")[:_INPUT_EXAMPLES]
    classes = len(read_json(DATA / "data.json")["classes"])
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, *images.shape[1:]), "image")]),
        Schema([TensorSpec(np.dtype("float32"), (-1, classes), "probabilities")]),
    )
    fluent.set_tracking_uri(tracking_uri())
    hush()
    logged = None
    with fluent.start_run(run_id=tracked.id):
        logged = log_model(
            onnx.load(MODEL),  # logging changes what it is given: it gets a copy of its own
            name="model",
            signature=signature,
            input_example={"image": np.ascontiguousarray(images)},
            save_as_external_data=False,
            pip_requirements=[
                f"{p}=={importlib.metadata.version(p)}" for p in ("onnx", "onnxruntime", "numpy")
            ],
            registered_model_name=name,
            metadata={key: origin[key] for key in ("data_sha256", "model_sha256")},
            tags={
                "model_sha256": origin["model_sha256"]
            },  # from the first moment: a crash after it is mended by it
        )
    assert logged is not None and logged.registered_model_version is not None
    return mlflow.get_model_version(name, str(logged.registered_model_version))


def download(version: ModelVersion, file: str, folder: Path) -> Path:
    """A file of a registered version."""
    import mlflow
    from mlflow.artifacts import download_artifacts

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri())
    uri = f"models:/{version.name}/{version.version}/{file}"
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def attach(mlflow: MlflowClient, version: ModelVersion, *files: Path) -> None:
    """Puts files beside a registered model, under the paths they have in artifacts/."""
    model_id = str(version.source).rpartition("/")[2]  # models:/ID
    for file in files:
        folder = "" if file.parent in (EXPORT, Path(), CARD.parent) else file.parent.name
        mlflow.log_model_artifact(model_id, str(file), folder or None)


def hush() -> None:
    """MLflow's remarks about its own doings stay out of the stage's output."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


# --- The verdict ---


def gate_settings(limits: RegistryParams) -> dict[str, Any]:
    """The settings that decide of promotion."""
    return limits.model_dump(exclude={"name", "max_int8_drop"})


def judged(
    mlflow: MlflowClient,
    version: ModelVersion,
    params: Params,
    exported: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Puts the version through the gate and promotes it if it passes; writes the card. Returns the report."""
    from stages.registry import (
        card,
    )  # knows genotypes, which need torch: seconds that most calls of the stage do without

    name, number, test = version.name, str(version.version), read_test_set()
    for tag in (REPORT, "refused"):  # of an earlier judgement
        mlflow.delete_model_version_tag(name, number, tag)
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder, alone():
        identical = same_answers(download(version, MODEL.name, Path(folder)), test.images[:_IDENTICAL])
        scores = score(MODEL, test)
        tags = version_tags(params, exported, origin)
        tags |= {"test_accuracy": str(scores.accuracy), "test_sha256": test.sha256}
        for key, value in tags.items():
            mlflow.set_model_version_tag(name, number, key, value)
        int8 = int8_verdict(exported.get("int8"), scores.accuracy, test, params.registry.max_int8_drop)
        attach(mlflow, version, *([INT8] if int8 and int8["included"] else []))
        mlflow.set_registered_model_alias(name, CHALLENGER, number)
        judge = judging(mlflow, scores, identical, test, exported, params.registry)
        judgement, champion = promote(mlflow, name, number, judge)
        report = {
            "model": name,
            "version": int(number),
            **outcome(judgement, int(number), champion),
            **origin,
            "test_sha256": test.sha256,
            "int8": int8,
            "gate": gate_settings(params.registry),
        }
        for key, value in verdict_tags(report).items():
            mlflow.set_model_version_tag(name, number, key, value)
        sections = card.sections(report, judgement.evidence, params, exported)
        write_text(CARD, card.document(sections))
        attach(mlflow, version, CARD, *beside_the_model())
        mlflow.update_model_version(name, number, card.description(sections))
    return report


def beside_the_model() -> list[Path]:
    """The card's pictures, and what repeats the run."""
    pictures = [*sorted(GENOTYPE.glob("*.png")), RETRAIN / "confusion.png"]
    return [*pictures, *(path for path in (DVC_LOCK, PARAMS_FILE) if path.exists())]


def same_answers(file: Path, images: NDArray[np.uint8]) -> bool:
    """Whether a registered file answers bit for bit as the exported one."""
    try:
        return np.array_equal(answers(file, images), answers(MODEL, images))
    except Exception:  # ONNX Runtime's exceptions share no base class
        return False  # it cannot even be loaded


def judging(
    mlflow: MlflowClient,
    scores: Scores,
    identical: bool,
    test: TestSet,
    exported: Mapping[str, Any],
    limits: RegistryParams,
) -> Callable[[ModelVersion | None], Judgement]:
    """The judge of a network with these scores, who compares it with a champion."""

    def judge(version: ModelVersion | None) -> Judgement:
        champion = None if version is None else champion_scores(mlflow, version, test)
        evidence = Evidence(
            challenger=scores,
            champion=champion,
            largest_difference=exported["largest_difference"],
            disagreements=exported["disagreements"],
            identical=identical,
        )
        return decide(evidence, limits)

    return judge


def champion_scores(mlflow: MlflowClient, version: ModelVersion, test: TestSet) -> Champion:
    """The champion, downloaded and run on the challenger's test images, or why it cannot be."""
    number = int(version.version)
    if version.tags.get("test_sha256") != test.sha256:
        return Champion(number, None, f"the champion, version {number}, was tested on other images")
    try:
        with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
            return Champion(number, score(download(version, MODEL.name, Path(folder)), test))
    except (
        Exception
    ) as error:  # of the artifact store, or of ONNX Runtime, whose exceptions share no base class
        mlflow.get_model_version(version.name, str(number))  # raises when it is the server that is away
        reason = " ".join(str(error).split())[:200]
        return Champion(number, None, f"the champion, version {number}, cannot be run ({reason})")


def int8_verdict(
    int8: Mapping[str, Any] | None, accuracy: float, test: TestSet, limit: float
) -> dict[str, Any] | None:
    """Whether the version gets the quantized file, by what it costs in accuracy here and now; None without one."""
    if int8 is None:
        return None
    measured = float((answers(INT8, test.images).argmax(axis=1) == test.labels).mean())
    drop = accuracy - measured
    included = within(drop, limit)
    reason = f"int8 costs {drop:.4f} of test accuracy, {'within' if included else 'more than'} registry.max_int8_drop ({limit:g})"  # fmt: skip
    return {
        **int8,
        "test_accuracy": measured,
        "accuracy_drop": drop,
        "included": included,
        "reason": reason,
    }


def within(drop: float, limit: float) -> bool:
    """Whether a loss of accuracy is no more than the limit; accuracies are quotients of counts: 0.8 - 0.7 > 0.1."""
    return drop <= limit + 1e-12


def outcome(judgement: Judgement, version: int, champion: int | None) -> dict[str, Any]:
    """The verdict as registry.json tells it."""
    evidence, found = judgement.evidence, comparison(judgement.evidence)
    compared, promoted = evidence.champion, champion == version
    reasons = list(judgement.refusals)
    if not promoted and not reasons:
        reasons = [f"version {champion}, promoted at the same time, is at least as accurate"]
    elif not promoted and compared is not None and compared.scores is None:
        reasons.append(f"`python -m stages.champion {version}` makes it champion without comparison")
    if not promoted:
        reason = f"not promoted: {'; '.join(reasons)}"
    elif reasons:  # cut off after its promotion, or made champion by a person
        reason = f"champion already, although {'; '.join(reasons)}"
    else:
        reason = f"champion: {accuracies(evidence)}" if found else "champion, for there was none"
    if found:
        reason += f" (p = {found.p_value:.2g}, {'more than' if found.exceeds_noise else 'within the'} noise)"
    return {
        "promoted": promoted,
        "reason": reason,
        "refusals": [] if promoted else reasons,
        "aliases": [CHALLENGER, CHAMPION] if promoted else [CHALLENGER],
        "champion_before": compared.version if compared else None,
        "champion_after": champion,
        **measured(evidence.challenger),
        "calibration_error": calibration(evidence.challenger).error,
        "compared": None
        if compared is None or compared.scores is None or found is None
        else {
            **measured(compared.scores),
            "gain": found.gain,
            "only_challenger_right": found.only_challenger,
            "only_champion_right": found.only_champion,
            "p_value": found.p_value,
            "exceeds_noise": found.exceeds_noise,
        },
    }


def measured(scores: Scores) -> dict[str, float]:
    """The numbers of one network."""
    return {
        "test_accuracy": scores.accuracy,
        "latency_ms": scores.latency_ms,
        "size_bytes": scores.size_bytes,
    }


def verdict_tags(report: Mapping[str, Any]) -> dict[str, str]:
    """The verdict as tags of the version; "refused" is there only when it was."""
    tags = {
        "gate": "passed" if report["promoted"] else "refused",
        "calibration_error": f"{report['calibration_error']:.4f}",
    }
    if report["refusals"]:
        tags["refused"] = "; ".join(report["refusals"])
    if report["compared"]:
        tags["p_value"] = f"{report['compared']['p_value']:.3g}"
    if report["int8"]:
        tags["int8"] = "included" if report["int8"]["included"] else f"refused: {report['int8']['reason']}"
    return tags


if __name__ == "__main__":
    sys.exit(run("register", main))
