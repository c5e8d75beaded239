"""register: the exported network as a new version in the MLflow registry, ``champion`` if it is the best so far.

DVC calls this stage every time, for only the registry knows what is in it: a clone that restored its artifacts, or a
registry that was emptied, still ends with a registered version. When the version is there, nothing changes.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from stages._files import (
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
)
from stages._runtime import run
from stages._tracking import StageRun, client, git_commit, reported, run_that_made, stage_run, tracking_uri
from stages.errors import MachineError, UserError
from stages.params import Params

CHAMPION, CHALLENGER = "champion", "challenger"
_INPUT_EXAMPLES = 2  # images kept with the model to show what it takes


def main(params: Params) -> None:
    model, name = EXPORT / "model.onnx", params.registry.name
    if not model.is_file():
        raise UserError(f"{model} is missing; `dvc repro export` makes it")
    sha256 = sha256_of(model)
    mlflow = client()
    if (version := registered(mlflow, name, sha256)) is not None:
        if not REGISTRY.exists() or read_json(REGISTRY).get("version") != int(version.version):
            write_json(REGISTRY, json.loads(version.tags["registry"]))
        print(f"register: {name} version {version.version} is this network already")
        return
    data, metrics = read_json(DATA / "data.json"), read_json(RETRAIN / "metrics.json")
    report = {
        "model": name,
        "test_accuracy": metrics["test_accuracy"],
        "model_sha256": sha256,
        "data_sha256": data["sha256"],
        "git_commit": git_commit(),
    }
    with stage_run("register", params.registry.model_dump()) as tracked, reported():
        tracked.dataset(data, params.data.root)
        report["runs"] = {
            "search": run_that_made(mlflow, *SEARCH_RESULTS),
            "retrain": run_that_made(mlflow, RETRAIN),
            "export": run_that_made(mlflow, EXPORT),
            "register": tracked.id,
        }
        version = log_version(tracked, name, report)
        check_reload(name, version)
        report |= {"version": int(version), **promotion(mlflow, name, report)}
        for key, value in version_tags(report).items():
            mlflow.set_model_version_tag(name, version, key, value)
        for alias in report["aliases"]:
            mlflow.set_registered_model_alias(name, alias, version)
        mlflow.set_model_version_tag(name, version, "registry", json.dumps(report))
        write_json(REGISTRY, report)
        tracked.metrics({"test_accuracy": report["test_accuracy"], "version": report["version"]})
        tracked.artifacts(REGISTRY)
    print(f"register: {name} version {version}: {report['reason']}")


def registered(mlflow: MlflowClient, name: str, sha256: str) -> ModelVersion | None:
    """The version of this very network whose registration was completed, if there is one."""
    with reported():
        found = mlflow.search_model_versions(f"name = '{name}' AND tags.model_sha256 = '{sha256}'")
    complete = [version for version in found if "registry" in version.tags]
    return max(complete, key=lambda version: int(version.version), default=None)


def promotion(mlflow: MlflowClient, name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Which aliases the new version gets, and why: champion when it beats the champion on the same data."""
    accuracy = report["test_accuracy"]
    champion = find_alias(mlflow, name, CHAMPION)
    if champion is None:
        promoted, reason = True, "champion, for there was none"
    elif champion.tags.get("data_sha256") != report["data_sha256"]:
        promoted = False
        reason = f"not promoted: the champion, version {champion.version}, was tested on other data"
    else:
        best = float(champion.tags["test_accuracy"])
        promoted = accuracy > best
        comparison = f"test accuracy {accuracy:.4f} against {best:.4f} of version {champion.version}"
        reason = f"champion: {comparison}" if promoted else f"not promoted: {comparison}"
    return {
        "promoted": promoted,
        "reason": reason,
        "aliases": [CHALLENGER, CHAMPION] if promoted else [CHALLENGER],
        "champion_before": int(champion.version) if champion else None,
    }


def find_alias(mlflow: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version an alias points to, or None."""
    try:
        return mlflow.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def version_tags(report: dict[str, Any]) -> dict[str, str]:
    """What a version carries: where it came from and how good it is."""
    export, summary = read_json(EXPORT / "export.json"), read_json(SEARCH / "summary.json")
    return {
        "test_accuracy": str(report["test_accuracy"]),
        "discretization_gap": str(summary["discretization_gap"]),
        "data_sha256": report["data_sha256"],
        "git_commit": report["git_commit"],
        "classes": json.dumps(read_json(DATA / "data.json")["classes"]),
        "genotype": json.dumps(read_json(GENOTYPE / "genotype.json")),
        "params": str(export["params"]),
        "macs": str(export["macs"]),
        "latency_ms": json.dumps(export["latency_ms"]),
        **{f"run_{stage}": run_id for stage, run_id in report["runs"].items() if run_id},
        "model_sha256": report["model_sha256"],
    }


def log_version(tracked: StageRun, name: str, report: dict[str, Any]) -> str:
    """Logs the model with signature and input example, and registers it; returns the version.

    What it needs is imported here: most calls of the stage register nothing, and should be quick.
    """
    import mlflow
    import numpy as np
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
    mlflow.set_tracking_uri(tracking_uri())
    hush()
    logged = None
    with mlflow.start_run(run_id=tracked.id):
        logged = log_model(
            onnx.load(EXPORT / "model.onnx"),  # logging changes what it is given: it gets a copy of its own
            name="model",
            signature=signature,
            input_example={"image": np.ascontiguousarray(images)},
            save_as_external_data=False,
            pip_requirements=[
                f"{p}=={importlib.metadata.version(p)}" for p in ("onnx", "onnxruntime", "numpy")
            ],
            registered_model_name=name,
            metadata={"data_sha256": report["data_sha256"], "model_sha256": report["model_sha256"]},
        )
    assert logged is not None and logged.registered_model_version is not None
    return str(logged.registered_model_version)


def check_reload(name: str, version: str) -> None:
    """The registered artifact must answer bit for bit as the exported file. Raises MachineError otherwise."""
    import numpy as np
    import onnxruntime
    from mlflow.onnx import load_model

    images = np.ascontiguousarray(np.load(DATA / "test_images.npy", mmap_mode="r")[:64])
    loaded = load_model(f"models:/{name}/{version}").SerializeToString()

    def answers(model: bytes) -> bytes:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"image": images})[0]).tobytes()

    if answers((EXPORT / "model.onnx").read_bytes()) != answers(loaded):
        raise MachineError(
            f"version {version} of {name}, loaded again, answers differently; it gets no alias"
        )


def hush() -> None:
    """MLflow's remarks about its own doings stay out of the stage's output."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(run("register", main))
