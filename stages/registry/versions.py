"""Versions of the registered model: found, made, filled with files, downloaded.

A version is found by its network (stages/registry/identity.py), not by the run or the commit that made its file. Its tag
``network_sha256`` holds the network's hash; versions from before there was this tag get it when a file is looked for.

What only making a version needs is imported where it is needed, because most calls of the stage register nothing.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from stages.plumbing.files import ARTIFACTS, EXPORT, file_sha256, sha256_of, write_json
from stages.plumbing.tracking import StageRun, tracking_uri
from stages.registry.identity import network_sha256
from stages.registry.promotion import CHAMPION, REPORT, WITHDRAWN, find_alias
from stages.registry.record import Origin

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from onnx import ModelProto, ValueInfoProto

_SHA256, _NETWORK = "model_sha256", "network_sha256"  # the tags by which a version is found: file, network
_ANSWERS = "answers.json"  # beside an ONNX model: what the server reads (serving/registry.py)
_ONNX_PACKAGES = ("onnx", "onnxruntime", "numpy")


def find(mlflow: MlflowClient, name: str, file: Path) -> ModelVersion | None:
    """The version of the network in this file, if there is one.

    Older registries may have several. The champion comes first, then one that was rolled back, so that no copy of it
    takes its place, then one whose registration was completed.
    """
    versions = list(mlflow.search_model_versions(f"name = '{name}'"))
    if not versions:
        return None
    hashes = file_sha256(file), sha256_of(file)  # the second mixes in the file's name, as all tags did once
    exact = [version for version in versions if version.tags.get(_SHA256) in hashes]
    network = next((version.tags[_NETWORK] for version in exact if _NETWORK in version.tags), None)
    if network is not None:  # when this version was made, all older ones got the tag
        same = [version for version in versions if version.tags.get(_NETWORK) == network]
    else:
        network = network_sha256(file)
        same = [version for version in versions if _network(mlflow, version, file.name) == network]
    champion = find_alias(mlflow, name, CHAMPION)

    def precedence(version: ModelVersion) -> tuple[bool, bool, bool, int]:
        is_champion = champion is not None and champion.version == version.version
        return is_champion, WITHDRAWN in version.tags, REPORT in version.tags, int(version.version)

    return max(
        {version.version: version for version in (*exact, *same)}.values(), key=precedence, default=None
    )


def _network(mlflow: MlflowClient, version: ModelVersion, file: str) -> str | None:
    """The network of a version. One without the tag gets it; None where the version's file cannot be downloaded."""
    if (known := version.tags.get(_NETWORK)) is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
        try:
            network = network_sha256(download(version, file, Path(folder)))
        except Exception:  # of the artifact store: its clients' exceptions share no base class
            return None
    mlflow.set_model_version_tag(version.name, str(version.version), _NETWORK, network)
    return network


def make(
    mlflow: MlflowClient,
    tracked: StageRun,
    name: str,
    file: Path,
    example: Mapping[str, NDArray],
    origin: Origin,
) -> ModelVersion:
    """Registers a file as a new version: ONNX as a model that MLflow can load, any other file as it is.

    ``example``: inputs to keep with an ONNX model, which show what it takes; not used for other files.
    """
    import mlflow as fluent

    fluent.set_tracking_uri(tracking_uri())
    for logger in ("mlflow", "alembic"):  # MLflow's remarks about its own work are not the stage's output
        logging.getLogger(logger).setLevel(logging.ERROR)
    if file.suffix == ".onnx":
        return _make_from_onnx(mlflow, tracked, name, file, example, origin)
    return _make_from_file(mlflow, tracked, name, file, origin)


def _make_from_onnx(
    mlflow: MlflowClient,
    tracked: StageRun,
    name: str,
    file: Path,
    example: Mapping[str, NDArray],
    origin: Origin,
) -> ModelVersion:
    """A version of MLflow's ONNX flavour, with signature and input example."""
    import mlflow as fluent
    import onnx
    from mlflow.onnx import log_model

    model = onnx.load(file)  # logging changes the object: nothing else may use it
    logged = None
    with fluent.start_run(run_id=tracked.id):
        logged = log_model(
            model,
            name="model",
            signature=_signature(model),
            input_example=dict(example),
            save_as_external_data=False,
            pip_requirements=[f"{p}=={importlib.metadata.version(p)}" for p in _ONNX_PACKAGES],
            registered_model_name=name,
            metadata={"data_sha256": origin.data_sha256, _SHA256: origin.model_sha256},
            # Set with the version itself: after a crash the next run finds the version by these tags.
            tags=_identity(file, origin),
        )
    assert logged is not None and logged.registered_model_version is not None
    return mlflow.get_model_version(name, str(logged.registered_model_version))


def _make_from_file(
    mlflow: MlflowClient, tracked: StageRun, name: str, file: Path, origin: Origin
) -> ModelVersion:
    """A version without a flavour: MLflow keeps the file and its description, and loads nothing."""
    from mlflow.models import Model

    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    experiment = mlflow.get_run(tracked.id).info.experiment_id
    identity = _identity(file, origin)
    logged = mlflow.create_logged_model(experiment, name="model", source_run_id=tracked.id, tags=identity)
    # ``file`` tells a server what the version holds instead of an ONNX model.
    metadata = {"data_sha256": origin.data_sha256, _SHA256: origin.model_sha256, "file": file.name}
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
        about = Path(folder) / "MLmodel"
        Model(run_id=tracked.id, model_id=logged.model_id, metadata=metadata).save(str(about))
        for part in (file, about):
            mlflow.log_model_artifact(logged.model_id, str(part))
    mlflow.finalize_logged_model(logged.model_id, "READY")
    return mlflow.create_model_version(
        name, f"models:/{logged.model_id}", tracked.id, tags=identity, model_id=logged.model_id
    )


def _identity(file: Path, origin: Origin) -> dict[str, str]:
    """The tags by which the version of a file is found."""
    return {_SHA256: origin.model_sha256, _NETWORK: network_sha256(file)}


def _signature(model: ModelProto) -> ModelSignature:
    """Inputs and outputs as the graph declares them; an axis without a fixed size is -1."""
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def spec(value: ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
        return TensorSpec(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape, value.name)

    constants = {constant.name for constant in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return ModelSignature(Schema([*map(spec, inputs)]), Schema([*map(spec, model.graph.output)]))


def download(version: ModelVersion, file: str, folder: Path) -> Path:
    """A file of a registered version."""
    import mlflow
    from mlflow.artifacts import download_artifacts

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri())
    uri = f"models:/{version.name}/{version.version}/{file}"
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def stored_sha256(version: ModelVersion, file: str) -> str:
    """The hash of a registered version's file."""
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
        return file_sha256(download(version, file, Path(folder)))


def attach_answers(
    mlflow: MlflowClient, version: ModelVersion, file: Path, example: Mapping[str, NDArray]
) -> None:
    """Puts inputs, and the network's outputs for them, beside an ONNX model, so that a server can check what it loads."""
    if file.suffix != ".onnx":
        return
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures are raised
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, dict(example)), strict=True))
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
        answers = Path(folder) / _ANSWERS
        write_json(
            answers,
            {
                kind: {name: np.asarray(values).tolist() for name, values in arrays.items()}
                for kind, arrays in (("inputs", example), ("outputs", outputs))
            },
        )
        mlflow.log_model_artifact(_model_id(version), str(answers))


def attach(mlflow: MlflowClient, version: ModelVersion, files: Sequence[Path]) -> None:
    """Puts files beside a registered model, under the paths they have in artifacts/; exported ones at the top."""
    for file in files:
        folder = "" if file.parent in (EXPORT, ARTIFACTS, Path()) else file.parent.name
        mlflow.log_model_artifact(_model_id(version), str(file), folder or None)


def _model_id(version: ModelVersion) -> str:
    return str(version.source).rpartition("/")[2]  # models:/ID
