"""The MLflow registry, seen from the server: which version an alias names, and that version loaded."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import ModelError
from serving.model import Model, load

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPOSITORY = Path(__file__).resolve().parents[1]

# A registry that does not answer is given up soon: the old version serves on, and the next look is seconds
# away.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)


@dataclass(frozen=True)
class Registry:
    """A registered model under an alias, where MLFLOW_TRACKING_URI says or in the repository's registry."""

    name: str
    alias: str
    threads: int

    def current(self) -> str:
        """The version that the alias names now. Raises ModelError where there is none or no registry."""
        from mlflow.exceptions import MlflowException  # slow to import, and not needed to serve a file

        try:
            return str(_client().get_model_version_by_alias(self.name, self.alias).version)
        except MlflowException as error:
            raise ModelError(f"models:/{self.name}@{self.alias}: {_line(error)}") from error

    def load(self, version: str) -> Model:
        """That version, downloaded, loaded and proven to answer. Raises ModelError where that fails."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model as Logged

        uri = f"models:/{self.name}/{version}"
        _client()
        with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
            try:
                path = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
                flavours = Logged.load(str(path)).flavors
                content = (path / flavours["onnx"]["data"]).read_bytes()
            except KeyError:
                raise ModelError(f"{uri}: is not an ONNX model; register one with mlflow.onnx") from None
            except (MlflowException, OSError) as error:
                raise ModelError(f"{uri}: cannot be downloaded ({_line(error)})") from error
        return load(content, self.name, version, self.threads)


def _client() -> MlflowClient:
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        database = REPOSITORY / "mlflow.db"
        if not database.exists():  # MLflow would make an empty one
            raise ModelError(f"{database}: no registry yet; promote a model, or set MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(f"sqlite:///{database}")
    return mlflow.MlflowClient()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
