"""The registry: what is registered, what becomes champion and why, and that it heals itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import onnx
import onnxruntime
import pytest
from mlflow import MlflowClient

from stages.retrain import RETRAIN
from tests.stages.conftest import TINY, write_params

RunStage = Callable[..., int]


@pytest.fixture
def named(finished_copy: Path, request: pytest.FixtureRequest) -> str:
    """A finished project whose registered model has the test's own name."""
    name = f"model-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    write_params(finished_copy / "params.yaml", {**TINY, "registry.name": name})
    return name


def registry() -> dict:
    return json.loads(Path("artifacts/registry.json").read_text())


def change_network(accuracy: float, data_sha256: str | None = None) -> None:
    """Another network: a model file of other content, with that test accuracy."""
    model = onnx.load("artifacts/export/model.onnx")
    model.doc_string = f"accuracy {accuracy} {data_sha256}"
    onnx.save(model, "artifacts/export/model.onnx")
    path = RETRAIN / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": accuracy}))
    if data_sha256:
        about = Path("artifacts/data/data.json")
        about.write_text(json.dumps({**json.loads(about.read_text()), "sha256": data_sha256}))


def test_the_first_version_is_champion_and_complete(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    client = MlflowClient(tracking_uri=store)
    version = client.get_model_version_by_alias(named, "champion")
    assert client.get_model_version_by_alias(named, "challenger").version == version.version
    assert json.loads(version.tags["classes"]) == [str(n) for n in range(10)]
    assert json.loads(version.tags["genotype"])["space"] == "darts"
    for tag in (
        "data_sha256",
        "git_commit",
        "test_accuracy",
        "params",
        "macs",
        "run_search",
        "run_retrain",
        "run_export",
    ):
        assert version.tags[tag], tag
    report = registry()
    assert report["promoted"] is True
    assert report["version"] == 1
    for stage in ("search", "retrain", "export", "register"):
        assert client.get_run(report["runs"][stage]).data.tags["stage"] == stage

    mlflow.set_tracking_uri(store)
    loaded = mlflow.pyfunc.load_model(f"models:/{named}@champion")
    images = np.load("artifacts/data/test_images.npy")[:5]
    answer = loaded.predict({"image": images})["probabilities"]
    session = onnxruntime.InferenceSession("artifacts/export/model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(answer, session.run(None, {"image": images})[0])
    assert loaded.metadata.signature is not None
    assert loaded.metadata.saved_input_example_info is not None


def test_again_changes_nothing(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    before = Path("artifacts/registry.json").read_bytes()
    assert run_stage("register") == 0
    assert Path("artifacts/registry.json").read_bytes() == before
    assert len(MlflowClient(tracking_uri=store).search_model_versions(f"name = '{named}'")) == 1


@pytest.mark.parametrize(
    ("accuracy", "other_data", "promoted", "reason"),
    [
        (0.9999, False, True, "champion: test accuracy 0.9999 against"),
        (0.0001, False, False, "not promoted: test accuracy 0.0001 against"),
        (0.9999, True, False, "not promoted: the champion, version 1, was tested on other data"),
    ],
)
def test_the_better_on_the_same_data_is_champion(
    named: str,
    run_stage: RunStage,
    store: str,
    accuracy: float,
    other_data: bool,
    promoted: bool,
    reason: str,
) -> None:
    assert run_stage("register") == 0
    change_network(accuracy, "0" * 64 if other_data else None)
    assert run_stage("register") == 0
    report = registry()
    assert report["promoted"] is promoted
    assert report["reason"].startswith(reason)
    client = MlflowClient(tracking_uri=store)
    assert int(client.get_model_version_by_alias(named, "challenger").version) == 2
    assert int(client.get_model_version_by_alias(named, "champion").version) == (2 if promoted else 1)


def test_equal_is_not_better(named: str, run_stage: RunStage) -> None:
    assert run_stage("register") == 0
    change_network(json.loads((RETRAIN / "metrics.json").read_text())["test_accuracy"])
    assert run_stage("register") == 0
    assert registry()["promoted"] is False


def test_an_emptied_registry_gets_its_version_again(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    client = MlflowClient(tracking_uri=store)
    client.delete_registered_model(named)
    assert run_stage("register") == 0
    assert int(client.get_model_version_by_alias(named, "champion").version) == registry()["version"]


def test_a_restored_clone_registers_in_its_own_store(
    named: str, run_stage: RunStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_stage("register") == 0  # registry.json is there, as if pulled from a DVC remote
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert run_stage("register") == 0
    assert MlflowClient(tracking_uri=other).get_model_version_by_alias(named, "champion").version
    assert registry()["runs"]["search"] is None  # that run is in the other store


def test_a_registration_cut_off_before_its_end_is_done_again(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("the machine stopped")

    with monkeypatch.context() as patched:
        patched.setattr("stages.register.check_reload", crash)
        assert run_stage("register") == 1
    client = MlflowClient(tracking_uri=store)
    with pytest.raises(mlflow.MlflowException):
        client.get_model_version_by_alias(named, "champion")
    assert run_stage("register") == 0
    assert int(client.get_model_version_by_alias(named, "champion").version) == 2
