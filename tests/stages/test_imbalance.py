"""Data with many images of one class and few of another: what is shown, what is said, and what the gate compares."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from mlflow import MlflowClient
from onnx import numpy_helper

from stages.evaluation import Evaluation
from stages.images.params import BALANCED, METRIC
from stages.plumbing.settings import load
from stages.records import ExportRecord, RetrainMetrics
from tests.stages.conftest import TINY, write_params
from tests.stages.networks import DATA, EXPORT, export, linear
from tests.stages.registering import alias, number, registry, run_champion, settings

RunStage = Callable[..., int]
STAGES = ("prepare", "measure", "search", "discretize", "retrain", "export", "register", "report")
NOTICE = "1 of 3 classes is never recognized: rare_one (2 test images)"


def images(count: int, brightness: int) -> np.ndarray:
    """Noise around a brightness."""
    noise = np.random.default_rng(brightness).integers(-20, 20, (count, 8, 8))
    return (brightness + noise).astype(np.uint8)


def write_npz(path: Path) -> None:
    """Dark and bright images, and a class of a few images that look like the dark ones in every split."""
    splits = {}
    for split, many, few in (("train", 60, 4), ("val", 20, 2), ("test", 20, 2)):
        labels = [0] * many + [1] * many + [2] * few
        parts = [images(many, 60), images(many, 200), images(few, 60)]
        splits |= {f"{split}_images": np.concatenate(parts), f"{split}_labels": np.array(labels)}
    np.savez(path, class_names=np.array(["dark", "bright", "rare_one"]), **splits)  # pyright: ignore[reportArgumentType]


def test_a_class_that_is_never_recognized_is_noticed_everywhere(
    project: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    write_npz(project / "own.npz")
    changes = {
        "data.name": "npz",
        "data.root": "own.npz",
        "registry.name": "imbalanced",
        "search.penalty": "none",  # its cell is one that learns the two large classes in six epochs
        "search.alpha.learning_rate": 0.01,
        "retrain.epochs": 6,
        "retrain.batch_size": 32,
        "retrain.learning_rate": 0.1,
        "retrain.drop_path": 0.0,
    }
    write_params(project / "params.yaml", {**TINY, **changes})
    said = {}
    for stage in STAGES:
        assert run_stage(stage) == 0, stage
        said[stage] = capsys.readouterr().out.splitlines()

    metrics = json.loads((project / "artifacts/retrain/metrics.json").read_text())
    recalls = metrics["class_accuracy"]
    assert recalls["rare_one"] == 0 and recalls["dark"] > 0.8 and recalls["bright"] > 0.8
    balanced = sum(recalls.values()) / 3
    assert metrics["test_balanced_accuracy"] == pytest.approx(balanced)
    assert metrics["test_accuracy"] > 0.8 > balanced
    with (project / "artifacts/retrain/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = rows[metrics["best_epoch"] - 1]
    assert metrics["valid_balanced_accuracy"] == pytest.approx(float(best["valid_balanced_accuracy"]))
    assert float(best["valid_balanced_accuracy"]) < float(best["valid_accuracy"])
    summary = json.loads((project / "artifacts/search/summary.json").read_text())
    assert 0 < summary["valid_balanced_accuracy"] < 1
    exported = json.loads((project / "artifacts/export/export.json").read_text())
    report = json.loads((project / "artifacts/registry.json").read_text())
    for content in (exported, report):
        assert content["test_balanced_accuracy"] == pytest.approx(balanced)
        assert content["int8"]["test_balanced_accuracy"] < 0.8
    version = alias(store, "imbalanced", "champion")
    assert float(version.tags["test_balanced_accuracy"]) == report["test_balanced_accuracy"]
    for stage in ("retrain", "export", "register"):
        run = MlflowClient(store).get_run(version.tags[f"run_{stage}"])
        assert run.data.metrics["test_balanced_accuracy"] == pytest.approx(balanced)

    scores = f"test accuracy {metrics['test_accuracy']:.4f}, balanced accuracy {balanced:.4f}"
    assert f"retrain: {scores} with the weights of epoch {metrics['best_epoch']}" in said["retrain"]
    for stage in ("retrain", "register"):
        assert f"{stage}: notice: {NOTICE}" in said[stage]
    card = (project / "artifacts/model_card.md").read_text()
    assert f"**Notice: {NOTICE.replace('_', chr(92) + '_')}.**" in card.split("## ")[0]
    assert f"with a balanced accuracy of {balanced:.2%}" in card
    page = (project / "artifacts/report.html").read_text()
    assert f"Notice: {NOTICE}." in page
    assert f"balanced accuracy {balanced:.2%}" in page
    assert f"<b>{balanced:.1%}</b><span>balanced accuracy</span>" in page


def test_class_weights_are_those_of_the_training_images(project: Path, run_stage: RunStage) -> None:
    from stages.images.training import retrain_on
    from stages.images.training.inputs import read_images

    write_npz(project / "own.npz")
    changes = {"data.name": "npz", "data.root": "own.npz", "retrain.class_weights": "balanced"}
    write_params(project / "params.yaml", {**TINY, **changes})
    assert run_stage("prepare") == 0
    from models.images.genotype import from_json

    genotype = from_json(
        {"space": "nasbench201", "arch_str": "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|"}
    )
    weights = retrain_on(read_images(), load(), genotype).criterion.class_weights  # pyright: ignore[reportArgumentType]
    assert weights is not None
    np.testing.assert_allclose(weights.numpy(), [124 / 180, 124 / 180, 124 / 12], rtol=1e-6)
    params = load()
    equal = params.model_copy(update={"retrain": params.retrain.model_copy(update={"class_weights": "none"})})
    assert retrain_on(read_images(), equal, genotype).criterion.class_weights is None  # pyright: ignore[reportArgumentType]


def shifted(digit: int, bias: float) -> onnx.ModelProto:
    """A good network that takes many images for this digit, or hardly any."""
    model = linear(64)
    (place,) = [n for n, constant in enumerate(model.graph.initializer) if constant.name == "bias"]
    values = numpy_helper.to_array(model.graph.initializer[place]).copy()
    values[digit] += bias
    model.graph.initializer[place].CopyFrom(numpy_helper.from_array(values, "bias"))
    return model


def test_the_gate_compares_by_the_metric_of_the_settings_also_with_an_older_champion(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.load(DATA / "test_labels.npy")
    kept = np.flatnonzero((labels == 0) | (np.arange(len(labels)) % 12 == 0))  # many zeros, few others
    for name in ("labels", "images"):
        path = DATA / f"test_{name}.npy"
        np.save(path, np.load(path)[kept])
    settings(named)
    export(shifted(0, 15.0))  # nearly everything is a zero
    first = Evaluation.load(EXPORT / "evaluation.safetensors")
    assert run_stage("register") == 0
    version = alias(store, named, "champion")
    before = json.loads(version.tags["report"])
    mlflow = MlflowClient(store)  # as the version was before there was balanced accuracy
    mlflow.delete_model_version_tag(named, "1", "test_balanced_accuracy")
    del before["test_balanced_accuracy"]
    mlflow.set_model_version_tag(named, "1", "report", json.dumps(before))

    export(shifted(0, -20.0))  # hardly anything is a zero, but most of the others are recognized
    second = Evaluation.load(EXPORT / "evaluation.safetensors")
    assert second.score < first.score
    assert BALANCED.score(second) > BALANCED.score(first)
    assert run_stage("register") == 0
    assert registry()["refusals"] == [
        f"test accuracy {second.score:.4f} against {first.score:.4f} of version 1"
    ]
    assert registry()["compared"]["test_balanced_accuracy"] == BALANCED.score(first)
    card = Path("artifacts/model_card.md").read_text()
    ours, theirs = (f"{BALANCED.score(each):.2%}" for each in (second, first))
    assert f"| test balanced accuracy | {ours} | {theirs} |" in card
    assert run_stage("register") == 0  # nothing has changed, so the decision holds
    assert "is already registered" in capsys.readouterr().out

    settings(named, metric="balanced_accuracy")
    assert run_stage("register") == 0
    report = registry()
    assert (report["promoted"], report["metric"], number(store, named)) == (True, "balanced_accuracy", 2)
    assert (report["test_accuracy"], report["test_balanced_accuracy"]) == (
        second.score,
        BALANCED.score(second),
    )
    assert report["reason"].startswith(
        f"champion: test balanced accuracy {BALANCED.score(second):.4f} against {BALANCED.score(first):.4f}"
    )
    assert report["compared"]["test_accuracy"] == first.score
    assert report["int8"]["balanced_accuracy_drop"] == pytest.approx(
        BALANCED.score(second) - report["int8"]["test_balanced_accuracy"]
    )
    card = Path("artifacts/model_card.md").read_text()
    assert "a paired permutation test of the balanced accuracy gives" in card
    assert run_stage("report") == 0
    capsys.readouterr()
    assert run_champion(run_stage) == 0
    scores = f"test accuracy {second.score:.4f}, test balanced accuracy {BALANCED.score(second):.4f}"
    assert capsys.readouterr().out.splitlines()[0] == f"champion of {named}: version 2, {scores}"


def test_files_from_before_there_was_balanced_accuracy_are_read(finished: Path) -> None:
    for record, file in ((RetrainMetrics, "retrain/metrics.json"), (ExportRecord, "export/export.json")):
        content = json.loads((finished / "artifacts" / file).read_text())
        assert content.pop("test_balanced_accuracy") is not None
        content.pop("valid_balanced_accuracy", None)
        (content.get("int8") or {}).pop("test_balanced_accuracy", None)
        old = record.of(content, METRIC, file)
        assert old.content(METRIC) == content
        assert old.test_balanced_score is None
