"""The stages work on each other's artifacts, for every family of search spaces."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
import torch
from PIL import Image

from models.images.genotype import to_json
from models.images.spaces import search_space
from models.search.discretize import discretize
from stages import report
from stages.registry.record import Origin, RegistryRecord
from tests.stages.conftest import TINY, write_params

RunStage = Callable[..., int]


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_discretize_prints_and_writes_the_genotype_of_the_epoch_asked_for(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str], epoch: str
) -> None:
    path = finished_copy / "artifacts/search/summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "best_epoch": 1}))
    write_params(finished_copy / "params.yaml", {**TINY, "discretize.epoch": epoch})
    assert run_stage("discretize") == 0
    with safetensors.safe_open(finished_copy / "artifacts/search/alphas.safetensors", framework="pt") as file:
        names = list(file.keys())
        epochs = {name: file.get_tensor(name) for name in names}
    chosen = 0 if epoch == "best" else -1
    mix = {name: torch.softmax(alphas[chosen], dim=-1) for name, alphas in epochs.items()}
    expected = to_json(discretize(search_space("s5"), mix))
    assert json.loads((finished_copy / "artifacts/genotype/genotype.json").read_text()) == expected
    printed = capsys.readouterr().out
    for op, source in expected["normal"]:
        assert f"{source}->" in printed
        assert op in printed


def test_the_test_images_have_no_part_in_the_weights(finished_copy: Path, run_stage: RunStage) -> None:
    weights = (finished_copy / "artifacts/retrain/weights.safetensors").read_bytes()
    metrics = json.loads((finished_copy / "artifacts/retrain/metrics.json").read_text())
    images = finished_copy / "artifacts/data/test_images.npy"
    np.save(images, np.zeros_like(np.load(images)))
    assert run_stage("retrain") == 0
    assert (finished_copy / "artifacts/retrain/weights.safetensors").read_bytes() == weights
    changed = json.loads((finished_copy / "artifacts/retrain/metrics.json").read_text())
    assert changed["valid_accuracy"] == metrics["valid_accuracy"]
    # The accuracy was measured on these images. They are black, so all of them are taken for one class.
    labels = np.load(finished_copy / "artifacts/data/test_labels.npy")
    (taken_for,) = (int(name) for name, share in changed["class_accuracy"].items() if share == 1)
    assert sum(changed["class_accuracy"].values()) == 1
    assert changed["test_accuracy"] == pytest.approx(np.mean(labels == taken_for))


def test_a_seed_gives_the_same_artifacts_and_another_seed_others(
    finished_copy: Path, run_stage: RunStage
) -> None:
    path = finished_copy / "artifacts/search/alphas.safetensors"
    first = path.read_bytes()
    assert run_stage("search") == 0
    assert path.read_bytes() == first
    write_params(finished_copy / "params.yaml", {**TINY, "search.seed": 1})
    assert run_stage("search") == 0
    assert path.read_bytes() != first


def test_classes_may_be_called_anything(finished_copy: Path, run_stage: RunStage) -> None:
    path = finished_copy / "artifacts/data/data.json"
    names = ["cat (wild)", "T-shirt/top", "猫", "a=b", "50%", "x:y", "../up", "", "'quoted'", "näh"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": names}))
    for stage in ("retrain", "export"):
        assert run_stage(stage) == 0, stage
    metrics = json.loads((finished_copy / "artifacts/retrain/metrics.json").read_text())
    assert list(metrics["class_accuracy"]) == names


def test_confusion_and_class_accuracy_agree(finished_copy: Path) -> None:
    metrics = json.loads((finished_copy / "artifacts/retrain/metrics.json").read_text())
    with (finished_copy / "artifacts/retrain/confusion.csv").open() as file:
        rows = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    labels = np.load(finished_copy / "artifacts/data/test_labels.npy")
    assert sorted(actual for actual, _ in rows) == sorted(str(label) for label in labels)
    assert metrics["test_accuracy"] == pytest.approx(np.mean([a == p for a, p in rows]))
    for name, accuracy in metrics["class_accuracy"].items():
        assert accuracy == pytest.approx(np.mean([p == name for a, p in rows if a == name]))


def test_the_onnx_file_keeps_the_contract(finished_copy: Path) -> None:
    model = onnx.load(finished_copy / "artifacts/export/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    ((image,), (probabilities,)) = model.graph.input, model.graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == ["batch", 8, 8, 1]
    assert [dim.dim_param or dim.dim_value for dim in probabilities.type.tensor_type.shape.dim] == [
        "batch",
        10,
    ]
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["class_names"]) == [str(n) for n in range(10)]
    assert json.loads(about["genotype"]) == json.loads(
        (finished_copy / "artifacts/genotype/genotype.json").read_text()
    )
    assert set(about) == {"class_names", "image_shape", "genotype"}
    assert str(Path(__file__).parents[2]).encode() not in model.SerializeToString()  # no path of this machine


NASBENCH201 = {
    **TINY,
    "search.space": "nasbench201",
    "search.cells": 1,
    "search.stages": 2,
    "search.exclude_none": True,
    "search.benchmark_table": "table.csv.gz",
    "search.early_stopping.watch": "skip_connections",
    "search.early_stopping.limit": 6,
    "retrain.cells": 1,
    "retrain.stages": 2,
}
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@pytest.fixture
def tabulated(finished_copy: Path) -> Path:
    """A finished project with a table that gives each of the 15,625 cells its own accuracy: its number / 200."""
    with gzip.open(finished_copy / "table.csv.gz", "wt") as file:
        file.write("arch_str,test_acc\n")
        for number in range(5**6):
            a, b, c, d, e, f = (OPERATIONS[number // 5**place % 5] for place in range(6))
            file.write(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|,{number / 200}\n")
    return finished_copy


@pytest.mark.parametrize("strategy", ["darts-2nd", "sdarts-adv", "single-level"])
def test_the_row_of_an_epoch_has_accuracy_and_rank_of_the_cell_in_the_table(
    tabulated: Path, run_stage: RunStage, strategy: str
) -> None:
    write_params(tabulated / "params.yaml", {**NASBENCH201, "search.strategy": strategy})
    assert run_stage("search") == 0
    assert run_stage("discretize") == 0
    genotype = json.loads((tabulated / "artifacts/genotype/genotype.json").read_text())
    assert genotype["space"] == "nasbench201"
    names = re.findall(r"(\w+)~", genotype["arch_str"])
    assert "none" not in names
    number = sum(OPERATIONS.index(name) * 5**place for place, name in enumerate(names))
    with (tabulated / "artifacts/search/history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["tabulated_accuracy"]) == pytest.approx(number / 200)
    assert int(last["tabulated_rank"]) == 5**6 - number


def unregistered() -> RegistryRecord:
    """What registry.json says of a network that no registry has."""
    return RegistryRecord(
        model="small",
        version=1,
        promoted=False,
        reason="refused",
        refusals=["refused"],
        aliases=["challenger"],
        champion_before=None,
        champion_after=None,
        metric="accuracy",
        score=0.1,
        latency_ms=1.0,
        size_bytes=1000,
        measures={},
        compared=None,
        origin=Origin(
            model_sha256="f" * 64,
            data_sha256="d" * 64,
            dvc_lock_sha256=None,
            git_commit="c" * 40,
            prefect_flow_run=None,
            runs={},
        ),
        test_sha256="e" * 64,
        int8=None,
        gate={},
    )


def test_nasbench201_from_search_to_report(
    tabulated: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(tabulated / "params.yaml", {**NASBENCH201, "search.strategy": "darts"})
    for stage in ("search", "discretize", "retrain", "export"):
        assert run_stage(stage) == 0, stage
    with Image.open(tabulated / "artifacts/genotype/cell.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 2  # the picture is not blank
    # The report handles one kind of cell, the table's accuracies, and a network that was not registered.
    unregistered().write(tabulated / "artifacts/registry.json")
    monkeypatch.setattr(report, "tell_registry", lambda *_: None)  # no registry has this version
    assert run_stage("report") == 0
    page = (tabulated / "artifacts/report.html").read_text()
    assert "tabulated accuracy" in page
    assert page.count("<figcaption>") == 1
