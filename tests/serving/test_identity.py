"""A version is its file: what is damaged, answers otherwise or only has the same number is not taken for it."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from pathlib import Path

import httpx
import mlflow
import mlflow.models
import numpy as np
import onnx
import onnxruntime
import pytest
from mlflow.onnx import save_model

from serving.errors import ModelError
from serving.registry import Registry
from tests.serving.stores import Store, ask, serving, store, wait_until
from tests.serving.tiny import network

__all__ = ["store"]  # a fixture
# MLflow warns about its own type hints when it is imported. The tests check what the server logs.
pytestmark = pytest.mark.filterwarnings("ignore")


def registered(
    name: str, model: onnx.ModelProto, folder: Path, *, answers: onnx.ModelProto | None = None
) -> Path:
    """Registers a model as the next version with its hash, and the answers of a network. Returns the stored file."""
    folder.mkdir()
    stored = folder / "stored"
    save_model(model, stored, pip_requirements=["onnxruntime"])
    image = np.broadcast_to(np.array([60, 30, 0], np.uint8), (1, 8, 8, 3)).copy()
    session = onnxruntime.InferenceSession((answers or model).SerializeToString())
    outputs = np.asarray(session.run(None, {"image": image})[0]).tolist()
    known = {"inputs": {"image": image.tolist()}, "outputs": {"probabilities": outputs}}
    (stored / "answers.json").write_text(json.dumps(known))
    run = mlflow.start_run(run_name=name).info
    mlflow.log_artifacts(str(stored), "stored")
    uri = f"{run.artifact_uri}/stored"
    mlflow.end_run()
    sha256 = hashlib.sha256((stored / "model.onnx").read_bytes()).hexdigest()
    mlflow.register_model(uri, name, tags={"model_sha256": sha256})
    return Path(urllib.parse.urlparse(uri).path) / "model.onnx"


def test_a_file_that_changed_since_it_was_registered_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    file = registered("damaged", network(), tmp_path / "1")
    store.client.set_registered_model_alias("damaged", "champion", "1")
    registry = Registry("damaged", "champion", threads=1)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert registry.load(registry.current()).sha256 == registry.current().identity == sha256
    # As in versions from before, whose hash has the name mixed in.
    mixed = hashlib.sha256(b"model.onnx" + bytes.fromhex(sha256)).hexdigest()
    store.client.set_model_version_tag("damaged", "1", "model_sha256", mixed)
    assert registry.load(registry.current()).sha256 == sha256
    file.write_bytes(network(sharpness=0.05001).SerializeToString())
    with pytest.raises(ModelError, match="models:/damaged/1: model.onnx is damaged: its SHA-256 is "):
        registry.load(registry.current())
    store.client.delete_model_version_tag("damaged", "1", "model_sha256")
    caplog.clear()
    assert registry.load(registry.current()).sha256 != sha256
    assert "models:/damaged/1: no tag has the hash of model.onnx, so it cannot be checked" in caplog.text


def test_a_version_that_answers_otherwise_than_when_it_was_registered_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    registered(
        "other", network(), tmp_path / "1", answers=network(class_names=("a", "b", "c"), sharpness=0.5)
    )
    store.client.set_registered_model_alias("other", "champion", "1")
    registry = Registry("other", "champion", threads=1)
    with pytest.raises(ModelError, match="models:/other/1: does not give the answers in its answers.json"):
        registry.load(registry.current())


def test_another_network_under_the_same_number_is_another_version(store: Store, tmp_path: Path) -> None:
    registered("again", network(), tmp_path / "1")
    store.client.set_registered_model_alias("again", "champion", "1")
    with serving(store, tmp_path, "--name", "again") as server, httpx.Client(base_url=server.url) as client:
        first = client.get("/v1/model").json()
        assert ask(client)[2] > 0.99
        store.client.delete_registered_model("again")
        registered("again", network(sharpness=0.01), tmp_path / "2")
        store.client.set_registered_model_alias("again", "champion", "1")
        wait_until(server, lambda: ask(client)[2] < 0.95)
        second = client.get("/v1/model").json()
    assert first["version"] == second["version"] == "1"
    assert first["sha256"] != second["sha256"]
