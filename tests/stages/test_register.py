"""The registry: what is registered, what becomes champion and why, and where versions come from."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from stages.images.params import METRIC as ACCURACY
from stages.plumbing.files import file_sha256
from stages.plumbing.settings import load
from tests.stages.networks import EXPORT, export, linear, right
from tests.stages.registering import (
    BAD,
    GOOD,
    RunStage,
    alias,
    int8_of,
    number,
    registry,
    run_champion,
    settings,
)


def test_the_first_version_is_champion_and_complete(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSDARTS_FLOW_RUN", "flow-1")
    Path("dvc.lock").write_text("schema: '2.0'\n")
    assert run_stage("register") == 0
    client = MlflowClient(tracking_uri=store)
    version = client.get_model_version_by_alias(named, "champion")
    assert client.get_model_version_by_alias(named, "challenger").version == version.version
    assert json.loads(version.tags["classes"]) == [str(n) for n in range(10)]
    assert json.loads(version.tags["genotype"])["space"] == "darts"
    assert json.loads(version.tags["settings"]) == load().of_results()
    assert version.tags["prefect_flow_run"] == "flow-1"
    assert version.tags["gate"] == "passed"
    assert "refused" not in version.tags
    data = json.loads(Path("artifacts/data/data.json").read_text())
    assert version.tags["data_sha256"] == data["sha256"]
    assert float(version.tags["test_accuracy"]) == right().mean()
    for tag in ("git_commit", "params", "macs", "test_sha256", "calibration_error"):
        assert version.tags[tag], tag
    report = registry()
    assert report["promoted"] is True
    assert report["version"] == 1
    for stage in ("search", "retrain", "export", "register"):  # the lineage works in both directions
        run = client.get_run(version.tags[f"run_{stage}"])
        assert run.data.tags["stage"] == stage
        assert f"{named}/1" in run.data.tags["registered_as"].split()
        assert report["runs"][stage] == run.info.run_id

    mlflow.set_tracking_uri(store)
    loaded = mlflow.pyfunc.load_model(f"models:/{named}@champion")
    images = np.load("artifacts/data/test_images.npy")[:5]
    answer = loaded.predict({"image": images})["probabilities"]
    session = onnxruntime.InferenceSession("artifacts/export/model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(answer, session.run(None, {"image": images})[0])
    assert loaded.metadata.signature is not None
    assert loaded.metadata.saved_input_example_info is not None
    beside = Path(download_artifacts(artifact_uri=f"models:/{named}/1"))
    assert (beside / "model_card.md").read_bytes() == Path("artifacts/model_card.md").read_bytes()
    lock = hashlib.sha256((beside / "dvc.lock").read_bytes()).hexdigest()
    assert version.tags["dvc_lock_sha256"] == lock == hashlib.sha256(b"schema: '2.0'\n").hexdigest()
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", (beside / "model_card.md").read_text()):
        assert (beside / picture).read_bytes() == Path("artifacts", picture).read_bytes()


def test_better_worse_equal_and_back(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    bad = right()
    export(linear(GOOD))
    assert run_stage("register") == 0
    good, report = right(), registry()
    assert (number(store, named), number(store, named, "previous_champion")) == (2, 1)
    p_value = ACCURACY.p_value(good.astype(float), bad.astype(float))
    assert report["reason"] == (
        f"champion: test accuracy {good.mean():.4f} against {bad.mean():.4f} of version 1"
        f" (p = {p_value:.2g}, more than noise)"
    )
    assert report["compared"]["test_accuracy"] == bad.mean()
    assert report["compared"]["only_challenger_right"] == (good & ~bad).sum()
    card = Path("artifacts/model_card.md").read_text()
    assert f"| test accuracy | {good.mean():.2%} | {bad.mean():.2%} |" in card
    assert str(alias(store, named, "champion").description).startswith(f"# {named}, version 2")

    export(linear(GOOD, sharpness=29.0))  # another network that is exactly as good
    assert run_stage("register") == 0
    refused = alias(store, named, "challenger")
    assert int(refused.version) == 3
    sentence = f"test accuracy {good.mean():.4f} against {good.mean():.4f} of version 2"
    assert refused.tags["refused"] == sentence
    assert registry()["reason"] == f"not promoted: {sentence} (p = 1, within the noise)"
    assert (registry()["promoted"], number(store, named)) == (False, 2)

    capsys.readouterr()
    assert run_champion(run_stage, "back") == 0
    assert capsys.readouterr().out == f"champion of {named} is version 1 again, instead of version 2\n"
    assert number(store, named) == 1
    assert run_stage("register") == 0  # version 3 was refused against 2, and is better than 1
    assert registry()["reason"].startswith("champion: ")
    assert (registry()["version"], number(store, named)) == (3, 3)
    assert "refused" not in alias(store, named, "champion").tags

    export(linear(GOOD))  # version 2 again, which a person has withdrawn: it stays withdrawn
    assert run_stage("register") == 0
    assert capsys.readouterr().out.endswith(
        f"register: model.onnx is already registered as {named} version 2, which was rolled back (the champion is"
        " version 3); `python -m stages.champion 2` makes it champion again\n"
    )
    assert (registry()["version"], number(store, named)) == (2, 3)
    assert run_champion(run_stage, "2") == 0
    assert (number(store, named), number(store, named, "previous_champion")) == (2, 3)
    assert run_champion(run_stage) == 0
    assert f"champion of {named}: version 2, test accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("move", "message"), [("back", "to roll back to"), ("7", "no version 7"), ("up", "'up' is not a version")]
)
def test_a_move_that_cannot_be_made_is_one_line(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str], move: str, message: str
) -> None:
    assert run_stage("register") == 0
    capsys.readouterr()
    assert run_champion(run_stage, move) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: champion: ")
    assert error.count("\n") == 1
    assert number(store, named) == 1


def test_other_test_images_are_another_matter_until_a_person_decides(
    named: str, run_stage: RunStage, store: str
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    labels = Path("artifacts/data/test_labels.npy")
    np.save(labels, np.load(labels)[::-1].copy()[::-1])  # the same
    export(linear(GOOD))
    assert run_stage("register") == 0
    assert registry()["promoted"] is True
    images = Path("artifacts/data/test_images.npy")
    np.save(images, np.load(images)[:-1])
    np.save(labels, np.load(labels)[:-1])
    export(linear(GOOD, sharpness=29.0))
    assert run_stage("register") == 0
    assert registry()["refusals"] == [
        "the champion, version 2, was tested on other images",
        "`python -m stages.champion 3` makes it champion without comparison",
    ]
    assert run_champion(run_stage, "3") == 0
    export(linear(GOOD, sharpness=28.0))  # compared on these from now on
    assert run_stage("register") == 0
    assert registry()["compared"]["p_value"] == 1


def test_changed_settings_judge_a_refused_version_again(named: str, run_stage: RunStage, store: str) -> None:
    settings(named, max_size_mb=1e-6, max_latency_ms=1e-9)
    assert run_stage("register") == 0
    version = alias(store, named, "challenger")
    assert version.tags["gate"] == "refused"
    assert "registry.max_latency_ms" in version.tags["refused"]
    assert "registry.max_size_mb" in version.tags["refused"]
    assert registry()["champion_after"] is None
    settings(named)
    assert run_stage("register") == 0
    assert (registry()["promoted"], number(store, named)) == (True, 1)


@pytest.mark.parametrize("included", [True, False])
def test_int8_is_in_the_version_when_it_costs_little(
    named: str, run_stage: RunStage, store: str, included: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    export(linear(GOOD if included else BAD, "stands in for the quantized one"))
    (EXPORT / "model.onnx").rename(EXPORT / "model.int8.onnx")
    int8 = int8_of(file_sha256(EXPORT / "model.int8.onnx"))
    export(linear(GOOD), int8=int8)
    assert run_stage("register") == 0
    drop = float(right().mean() - right(EXPORT / "model.int8.onnx").mean())
    report, version = registry(), alias(store, named, "champion")
    assert (report["promoted"], report["int8"]["included"]) == (True, included)
    assert report["int8"]["accuracy_drop"] == drop  # as measured, whatever export.json said
    mlflow.set_tracking_uri(store)
    beside = Path(download_artifacts(artifact_uri=f"models:/{named}/1"))
    assert (beside / "model.int8.onnx").exists() is included
    if included:
        assert version.tags["int8"] == "included"
    else:
        assert version.tags["int8"] == (
            f"refused: int8 costs {drop:.4f} of test accuracy, more than registry.max_int8_drop (0.01)"
        )
        settings(named, max_int8_drop=0.9)
        capsys.readouterr()
        assert run_stage("register") == 0
        assert "registered without int8 under another limit" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["model", "int8"])
def test_an_export_that_does_not_fit_together_is_one_line(
    named: str, run_stage: RunStage, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage == "model":
        export(linear(GOOD), model_sha256="0" * 64)
    else:
        export(linear(GOOD), int8=int8_of("0" * 64))
    assert run_stage("register") == 2
    error = capsys.readouterr().err
    file = EXPORT / (
        "export.json describes another" if damage == "model" else "model.int8.onnx is missing or"
    )
    assert error.startswith(f"error: register: {file}")
    assert error.endswith("; run `dvc repro -f export`\n")
    assert error.count("\n") == 1
    assert not Path("artifacts/registry.json").exists()


def test_a_run_knows_all_versions_it_led_to(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    retrain = registry()["runs"]["retrain"]
    export(linear(GOOD))
    assert run_stage("register") == 0
    tags = MlflowClient(tracking_uri=store).get_run(retrain).data.tags
    assert [f"{named}/1", f"{named}/2"] == [v for v in tags["registered_as"].split() if v.startswith(named)]


def test_whoever_deletes_the_champion_does_not_open_the_gate(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(tracking_uri=store)

    def registered(pixels: int, sharpness: float = 30.0) -> str:
        export(linear(pixels, sharpness=sharpness))
        capsys.readouterr()
        assert run_stage("register") == 0
        return capsys.readouterr().out

    registered(40)
    registered(GOOD)
    registered(50)  # refused, and better than the first
    client.delete_model_version(named, "2")
    said = registered(BAD)
    assert (
        f"notice: the champion of {named} was deleted; its heir is version 1, which was champion before it"
        in said
    )
    assert registry()["reason"].startswith("not promoted: test accuracy") and number(store, named) == 1
    with pytest.raises(MlflowException):
        number(store, named, "previous_champion")  # nothing was champion before version 1

    client.delete_model_version(named, "1")
    said = registered(BAD, sharpness=31.0)
    assert "its heir is version 3, the best of those that are left" in said
    assert "of version 3" in registry()["reason"] and number(store, named) == 3

    client.delete_registered_model_alias(named, "champion")
    assert "its heir is version 4" in registered(50), (
        "version 3 is judged again, so it cannot be its own rival"
    )
    assert number(store, named) == 3
    client.delete_registered_model_alias(named, "champion")
    said = registered(50)  # version 3 again, which has been promoted and is not judged again
    assert "its heir is version 4, which was champion before it" in said
    assert "notice" not in registered(50)


def test_a_version_that_is_not_sound_is_no_heir(named: str, run_stage: RunStage, store: str) -> None:
    client = MlflowClient(tracking_uri=store)
    settings(named, max_size_mb=1e-6)
    export(linear(GOOD))
    assert run_stage("register") == 0  # refused
    settings(named)
    export(linear(BAD))
    assert run_stage("register") == 0
    assert registry()["reason"] == "champion, because there was none before"
    client.delete_model_version(named, "2")
    export(linear(BAD, sharpness=31.0))
    assert run_stage("register") == 0
    assert (registry()["reason"], number(store, named)) == ("champion, because there was none before", 3)
