"""Reads the MLflow registry: the version that an alias names, the model of that version, and its report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from serving.errors import ModelError
from serving.model import Model, Origin, load

if TYPE_CHECKING:
    from mlflow import MlflowClient

INT8 = "model.int8.onnx"  # beside the float network, in the folder of a version that has it
# A version has this tag when it has a report. The tag names the run that logged the report as this artifact.
REPORT_TAG = "run_report"
REPORT = "report.html"
# The other tags that say where a version comes from; those of its runs begin with run_.
ORIGIN_TAGS = ("git_commit", "data_sha256", "dvc_lock_sha256", "prefect_flow_run")
REPOSITORY = Path(__file__).resolve().parents[1]

# The server gives up soon on a registry that does not answer, because the old version stays served and the
# next attempt follows within seconds.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)


@dataclass(frozen=True)
class Named:
    """What an alias names: a version, and the run with its report. The report is made after the version."""

    version: str
    report_run: str | None


@dataclass(frozen=True)
class Registry:
    """A registered model under an alias, at MLFLOW_TRACKING_URI or in the repository's mlflow.db."""

    name: str
    alias: str
    threads: int
    precision: str = "float32"

    def current(self) -> Named:
        """Looks up the alias. Raises ModelError if it names no version, or if there is no registry."""
        from mlflow.exceptions import MlflowException  # slow to import, and not needed to serve a file

        try:
            version = _client().get_model_version_by_alias(self.name, self.alias)
        except MlflowException as error:
            raise ModelError(f"models:/{self.name}@{self.alias}: {_line(error)}") from error
        return Named(str(version.version), version.tags.get(REPORT_TAG))

    def load(self, version: str) -> Model:
        """Downloads a version, loads it and checks that it answers.

        Raises ModelError if any of that fails.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        uri = f"models:/{self.name}/{version}"
        client = _client()
        with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
            try:
                path = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
                # MLflow's reader of this file needs pandas, which the server's image does not have.
                file = path / YAML(typ="safe").load(path / "MLmodel")["flavors"]["onnx"]["data"]
                if self.precision == "int8" and not (file := path / INT8).exists():
                    raise ModelError(
                        f"{uri}: has no {INT8}; set serve.precision: float32, or export with int8 and register again"
                    )
                content = file.read_bytes()
                tags = client.get_model_version(self.name, version).tags
            except KeyError:
                raise ModelError(f"{uri}: is not an ONNX model; register one with mlflow.onnx") from None
            except (MlflowException, OSError) as error:
                raise ModelError(f"{uri}: cannot be downloaded ({_line(error)})") from error
        return load(content, self.name, version, self.threads, _origin(tags, uri))

    def report(self, run: str) -> bytes:
        """Downloads the report of a run. Raises ModelError if that fails."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        _client()
        with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
            try:
                return Path(
                    download_artifacts(run_id=run, artifact_path=REPORT, dst_path=folder)
                ).read_bytes()
            except (MlflowException, OSError) as error:
                raise ModelError(f"{REPORT} of run {run}: cannot be downloaded ({_line(error)})") from error


def _origin(tags: Mapping[str, str], uri: str) -> Origin:
    """The origin of a version, which its tags hold."""
    runs = (tag for tag in sorted(tags) if tag.startswith("run_") and tag != REPORT_TAG)
    known = {tag: tags[tag] for tag in (*ORIGIN_TAGS, *runs) if tag in tags}
    return Origin(known, f"the tags of {uri}" if known else f"unknown: {uri} has no tags that say it")


def _client() -> MlflowClient:
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        database = REPOSITORY / "mlflow.db"
        if not database.exists():  # MLflow would create an empty one
            raise ModelError(f"{database}: no registry yet; promote a model, or set MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(f"sqlite:///{database}")
    return mlflow.MlflowClient()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
