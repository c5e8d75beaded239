"""Reads the MLflow registry: the version that an alias names, the model of that version, and its report."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from serving.errors import ModelError
from serving.known import KNOWN, read_known
from serving.model import Model, Origin, load, sha256_of
from serving.signature import NUMPY

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("serving")

SHA256_TAG = "model_sha256"  # of the version's file
REPORT_JSON_TAG = "report"  # registry.json, which has the hash of the int8 file
ANSWERS = "answers.json"  # inputs and the outputs that the network gave for them when it was registered
INT8 = "model.int8.onnx"  # beside the float network, in the folder of a version that has it
# A version has this tag when it has a report. The tag names the run that logged the report as this artifact.
REPORT_TAG = "run_report"
REPORT = "report.html"
# The other tags that say where a version comes from; those of its runs begin with run_.
ORIGIN_TAGS = ("git_commit", "data_sha256", "dvc_lock_sha256", "prefect_flow_run")
ARTIFACTS = "mlruns"  # beside a project's mlflow.db
REPOSITORY = Path(__file__).resolve().parents[1]

# The server gives up soon on a registry that does not answer, because the old version stays served and the
# next attempt follows within seconds.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",  # seconds per attempt: two attempts and the pause between them take under 10
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)


@dataclass(frozen=True)
class Named:
    """What an alias names: a version, and the run with its report. The report is made after the version."""

    version: str
    tags: Mapping[str, str]
    source: str  # MLflow's id of the logged model, which no other version has

    @property
    def identity(self) -> str:
        """The hash of the file. A number is no identity, because a registry that is built anew counts from 1 again."""
        return self.tags.get(SHA256_TAG, self.source)

    @property
    def report_run(self) -> str | None:
        return self.tags.get(REPORT_TAG)


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
        return Named(str(version.version), dict(version.tags), str(version.source))

    def load(self, named: Named) -> Model:
        """Downloads a version, checks its file, loads it, and checks its answers.

        Raises ModelError if any of that fails.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        uri = f"models:/{self.name}/{named.version}"
        _client()
        with tempfile.TemporaryDirectory(prefix="msdarts-") as folder:
            try:
                path = _moved(named, uri) or Path(download_artifacts(artifact_uri=uri, dst_path=folder))
                file = path / _onnx_name(path / "MLmodel", uri)
                if self.precision == "int8" and not (file := path / INT8).exists():
                    raise ModelError(
                        f"{uri}: has no {INT8}; set serve.precision: float32, or export with int8 and register again"
                    )
                content, known = file.read_bytes(), read_known(path / KNOWN)
                stored = path / ANSWERS
                answers = json.loads(stored.read_text()) if stored.exists() else None
            except (KeyError, TypeError, YAMLError):
                raise ModelError(f"{uri}: is not an ONNX model; register one with mlflow.onnx") from None
            except ValueError:
                raise ModelError(f"{uri}: {ANSWERS} is damaged; register the network again") from None
            except (MlflowException, OSError) as error:
                raise ModelError(f"{uri}: cannot be downloaded ({_line(error)})") from error
        check_file(content, file.name, named, uri)
        origin = _origin(named.tags, uri)
        model = load(content, self.name, named.version, self.threads, origin, named.identity, known)
        if answers is not None and file.name != INT8:
            check_answers(model, answers, uri)
        return model

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


def _onnx_name(about: Path, uri: str) -> str:
    """The name of a version's ONNX file. Raises ModelError where the version holds another file, and KeyError or TypeError.

    MLflow's reader of MLmodel needs pandas, which the server's image does not have.
    """
    content = YAML(typ="safe").load(about)
    if not content["flavors"] and (name := (content["metadata"] or {}).get("file")):
        raise ModelError(
            f"{uri}: there is no server for {name}, because it is no ONNX model; the version offers the file:"
            f" `mlflow artifacts download -u {uri}/{name} -d .`"
        )
    return content["flavors"]["onnx"]["data"]


def check_file(content: bytes, name: str, named: Named, uri: str) -> None:
    """Raises ModelError unless a file of a version has the hash that the version's tags give."""
    if name == INT8:
        report = json.loads(named.tags.get(REPORT_JSON_TAG, "{}"))
        expected = (report.get("int8") or {}).get("sha256")
    else:
        expected = named.tags.get(SHA256_TAG)
    if expected is None:
        log.warning("%s: no tag has the hash of %s, so it cannot be checked", uri, name)
        return
    sha256 = sha256_of(content)
    # Versions from before mixed the name into the hash.
    mixed = sha256_of(name.encode() + bytes.fromhex(sha256))
    if expected not in (sha256, mixed):
        raise ModelError(
            f"{uri}: {name} is damaged: its SHA-256 is {sha256[:12]}..., but {expected[:12]}... was registered;"
            " restore the file, or register the network again"
        )


def check_answers(model: Model, known: Mapping[str, Any], uri: str) -> None:
    """Raises ModelError unless the model gives the answers that were stored when it was registered."""
    try:
        types = {tensor.name: NUMPY[tensor.datatype] for tensor in model.inputs}
        feeds = {name: np.asarray(values, types[name]) for name, values in known["inputs"].items()}
        answers = model.compute(feeds, list(known["outputs"]))
        expected = [np.asarray(values) for values in known["outputs"].values()]
        # Another processor may round differently.
        same = all(np.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in zip(answers, expected, strict=True))
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{uri}: cannot be tried with its {ANSWERS} ({_line(error)})") from None
    if not same:
        raise ModelError(
            f"{uri}: does not give the answers in its {ANSWERS}, which were stored when it was registered;"
            " register the network again, and compare the versions of ONNX Runtime"
        )


def _origin(tags: Mapping[str, str], uri: str) -> Origin:
    """The origin of a version, which its tags hold."""
    runs = (tag for tag in sorted(tags) if tag.startswith("run_") and tag != REPORT_TAG)
    known = {tag: tags[tag] for tag in (*ORIGIN_TAGS, *runs) if tag in tags}
    return Origin(known, f"the tags of {uri}" if known else f"unknown: {uri} has no tags that say it")


def _moved(named: Named, uri: str) -> Path | None:
    """Where the files of a version are now if the project of a SQLite registry was moved or copied; None if it was not."""
    client = _client()
    database = client.tracking_uri.removeprefix("sqlite:///")
    if database == client.tracking_uri:
        return None
    kind, _, logged = named.source.partition("models:/")
    location = kind or str(client.get_logged_model(logged).artifact_location)
    return present_place(location, Path(database).resolve().parent, uri)


def present_place(location: str, project: Path, uri: str) -> Path | None:
    """Where the folder that was at ``location`` is now, if mlflow.db names a place outside of the project; else None.

    mlflow.db has absolute paths. In a copy of a project they lead to the original, in a moved one nowhere. Raises
    ModelError if the folder is nowhere.
    """
    address = urllib.parse.urlparse(location)
    if address.scheme not in ("", "file"):
        return None
    path = Path(urllib.parse.unquote(address.path))
    if path.is_relative_to(project):
        return None
    if ARTIFACTS in path.parts:
        below = path.parts[len(path.parts) - path.parts[::-1].index(ARTIFACTS) :]
        if (here := project / ARTIFACTS / Path(*below)).is_dir():
            return here
    if path.is_dir():
        return None
    raise ModelError(
        f"{uri}: its files were in {path}, which is gone, and are not in {project / ARTIFACTS}; if the project was"
        f" moved, move its folder {ARTIFACTS} too, or register the network again"
    )


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
