"""Versions of the registered model: found, made, filled with files, downloaded.

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

from stages.plumbing.files import ARTIFACTS, EXPORT
from stages.plumbing.tracking import StageRun, tracking_uri
from stages.registry.promotion import REPORT
from stages.registry.record import Origin

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from onnx import ModelProto, ValueInfoProto

_SHA256 = "model_sha256"  # the tag by which a version is found
_ONNX_PACKAGES = ("onnx", "onnxruntime", "numpy")


def find(mlflow: MlflowClient, name: str, sha256: str) -> ModelVersion | None:
    """The version of this very file, if there is one; one whose registration was completed comes first."""
    found = mlflow.search_model_versions(f"name = '{name}' AND tags.{_SHA256} = '{sha256}'")
    return max(found, key=lambda version: (REPORT in version.tags, int(version.version)), default=None)


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
            # Set with the version itself: after a crash the next run finds the version by this tag.
            tags={_SHA256: origin.model_sha256},
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
    identity = {_SHA256: origin.model_sha256}
    logged = mlflow.create_logged_model(experiment, name="model", source_run_id=tracked.id, tags=identity)
    metadata = {"data_sha256": origin.data_sha256, _SHA256: origin.model_sha256}
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
        about = Path(folder) / "MLmodel"
        Model(run_id=tracked.id, model_id=logged.model_id, metadata=metadata).save(str(about))
        for part in (file, about):
            mlflow.log_model_artifact(logged.model_id, str(part))
    mlflow.finalize_logged_model(logged.model_id, "READY")
    return mlflow.create_model_version(
        name, f"models:/{logged.model_id}", tracked.id, tags=identity, model_id=logged.model_id
    )


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


def attach(mlflow: MlflowClient, version: ModelVersion, files: Sequence[Path]) -> None:
    """Puts files beside a registered model, under the paths they have in artifacts/; exported ones at the top."""
    model_id = str(version.source).rpartition("/")[2]  # models:/ID
    for file in files:
        folder = "" if file.parent in (EXPORT, ARTIFACTS, Path()) else file.parent.name
        mlflow.log_model_artifact(model_id, str(file), folder or None)
