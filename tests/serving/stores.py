"""A registry for tests, and a server of its champion."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import mlflow.models
import numpy as np
import onnx
import pytest
from mlflow.onnx import log_model, save_model

from tests.serving.conftest import BLUE, Server, encode, files, running
from tests.serving.tiny import network

NAME = "tiny"


@dataclass(frozen=True)
class Store:
    """A registry for these tests.

    Version 1 is surer of its answers than version 2. Version 3 breaks the contract. Version 4 also has int8.
    """

    uri: str
    client: mlflow.MlflowClient

    def champion(self, version: str) -> None:
        """Gives the alias champion to a version."""
        self.client.set_registered_model_alias(NAME, "champion", version)

    def report(self, version: str, content: str) -> None:
        """Gives a version a report, as the stage report does."""
        experiment = self.client.get_experiment_by_name("test")
        assert experiment is not None
        run = self.client.create_run(experiment.experiment_id).info.run_id
        self.client.log_text(run, content, "report.html")
        self.client.set_model_version_tag(NAME, version, "run_report", run)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("test", (folder / "artifacts").as_uri()))
        with mlflow.start_run():
            for model in (network(), network(sharpness=0.01), network(metadata={"class_names": "broken"})):
                image = np.zeros((1, 8, 8, 3), np.uint8)
                log_model(
                    model,
                    name="model",
                    signature=mlflow.models.infer_signature(image, np.zeros((1, 3), np.float32)),
                    save_as_external_data=False,
                    pip_requirements=["onnxruntime"],
                    registered_model_name=NAME,
                )
            # The int8 network is beside the float one, in the version's folder.
            save_model(network(), folder / "both", pip_requirements=["onnxruntime"])
            int8 = network(sharpness=0.01, metadata={"precision": "int8"})
            onnx.save(int8, folder / "both" / "model.int8.onnx")
            mlflow.log_artifacts(str(folder / "both"), "both")
            mlflow.register_model(mlflow.get_artifact_uri("both"), NAME)
        yield Store(uri, mlflow.MlflowClient(uri))
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def serving(store: Store, folder: Path, *options: str, **environment: str) -> Iterator[Server]:
    watched = ("--name", NAME, "--watch-seconds", "0.1", *options)
    with running(folder, *watched, MLFLOW_TRACKING_URI=store.uri, **environment) as server:
        yield server


def wait_until(server: Server, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.05)


def ask(client: httpx.Client) -> tuple[int, str, float]:
    """Status, version, and how sure that version is of a blue picture."""
    answer = client.post("/v1/predict", files=files(encode(BLUE)))
    content = answer.json()
    if answer.status_code != 200:
        return answer.status_code, "", 0
    return 200, content["model_version"], content["predictions"][0]["probabilities"][2]
