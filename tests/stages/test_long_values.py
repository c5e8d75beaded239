"""Values whose length depends on the user's data fit MLflow, however long they are; nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from stages.images.data import ImageCard
from stages.plumbing.tracking import client, stage_run
from tests.stages.networks import export, linear
from tests.stages.registering import GOOD, RunStage, number

NAMES = [f"{number:04} {'a long name of a class ' * 9}"[:200] for number in range(1000)]


def card_of(classes: list[str], name: str = "imagefolder") -> ImageCard:
    return ImageCard(
        name=name,
        counts={"train": 1, "val": 1, "test": 1},
        sha256=f"{len(classes):x}{'f' * 60}",  # MLflow keeps one data set of a name and hash
        classes=classes,
        image_shape=(8, 8, 1),
        mean=[0.5],
        std=[0.5],
        mirror=False,
    )


def file_of_run(run: str, path: str, folder: Path) -> str:
    folder.mkdir()
    return Path(client().download_artifacts(run, path, str(folder))).read_text()


def test_a_thousand_classes_with_long_names_are_registered(
    named: str, run_stage: RunStage, store: str, tmp_path: Path
) -> None:
    path = Path("artifacts/data/data.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": NAMES}))
    export(linear(GOOD, classes=len(NAMES)))
    assert run_stage("register") == 0
    assert number(store, named) == 1
    tag = MlflowClient(tracking_uri=store).get_model_version(named, "1").tags["classes"]
    assert tag.startswith(f'["{NAMES[0]}')
    assert tag.endswith("characters, all of them in long_values/classes.json)")
    assert len(tag) < 1000
    beside = download_artifacts(
        artifact_uri=f"models:/{named}/1/long_values/classes.json", dst_path=str(tmp_path / "down")
    )
    assert json.loads(Path(beside).read_text()) == NAMES
    assert run_stage("register") == 0  # finds the version


@pytest.mark.parametrize("name", ["long" * 60, "é" * 255, "a/" * 200])
def test_a_score_of_each_class_is_logged_whatever_the_classes_are_called(project: Path, name: str) -> None:
    scores = {f"{number} {name}{number}": number / 1500 for number in range(1500)}  # as retrain does it
    with stage_run("retrain", {}) as run:
        run.metrics({"test_accuracy": 0.5, "class_accuracy": scores})
    logged = client().get_run(run.id).data.metrics
    assert len(logged) == 1501
    assert all(len(key) <= 250 for key in logged)
    assert {key.split("/")[1].split(" ")[0]: value for key, value in logged.items() if "/" in key} == {
        str(number): number / 1500 for number in range(1500)
    }


@pytest.mark.parametrize(("count", "in_a_file"), [(1000, False), (10_000, True)])
def test_a_data_set_with_many_classes_is_logged(project: Path, count: int, in_a_file: bool) -> None:
    card = card_of([f"{number:05}{'x' * 195}" for number in range(count)], "n" * 600)
    with stage_run("prepare", {}) as run:
        run.dataset(card, "data")
    inputs = client().get_run(run.id).inputs
    assert inputs is not None
    (entry,) = inputs.dataset_inputs
    assert len(entry.dataset.name) <= 500 and len(entry.dataset.schema or "") < 2**20
    found = json.loads(entry.dataset.schema or "")
    if in_a_file:
        assert found["whole"] == "long_values/dataset_schema.json"
        found = json.loads(file_of_run(run.id, found["whole"], project / "down"))
    assert found == card.schema_of_a_case()


def test_long_parameters_and_tags_of_a_run_are_kept_in_files(project: Path) -> None:
    params = {"classes": {"weights": [1.5] * 5000}, "root": "/" + "folder/" * 1000, "short": 3}
    with stage_run("search", params) as run:
        run.tags(note="n" * 10_000)
    found = client().get_run(run.id).data
    assert found.params["short"] == "3"
    assert found.params["classes.weights"].endswith("all of them in long_values/classes.weights.json)")
    assert found.params["root"].endswith("(7,001 characters, all of them in long_values/root.txt)")
    assert json.loads(file_of_run(run.id, "long_values/classes.weights.json", project / "1")) == [1.5] * 5000
    assert file_of_run(run.id, "long_values/root.txt", project / "2") == params["root"]
    assert found.tags["note"].startswith("nnn") and len(found.tags["note"]) < 1000
    assert file_of_run(run.id, "long_values/note.txt", project / "3") == "n" * 10_000

    with stage_run("search", params, resume=run.id) as again:  # the same values again are no change
        assert again.id == run.id
