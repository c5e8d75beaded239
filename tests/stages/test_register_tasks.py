"""Registering is independent of the task: a text file with forecasts is registered like an ONNX file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.models import Model, get_model_info
from mlflow.types import Schema, TensorSpec

from stages import champion, register
from stages.evaluation import Evaluation, Metric
from stages.params import Params
from stages.plumbing.files import EVALUATION, file_sha256
from stages.records import ExportRecord
from stages.registry import versions
from stages.registry.card import TaskCard
from tests.stages.networks import EXPORT, export, linear
from tests.stages.registering import RunStage, alias, number, registry, run_champion, settings

TRUTH = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
FILE = EXPORT / "forecasts.txt"


class Forecasts:
    """A task whose exported file is a line of numbers, and whose metric is better when lower."""

    metric = Metric("squared_error", "window", higher_is_better=False, outcomes="numbers")

    def evaluate(self, exported: Path) -> Evaluation:
        errors = (np.array(exported.read_text().split(), dtype=float) - TRUTH) ** 2
        size = {"size_bytes": exported.stat().st_size}
        return Evaluation(float(errors.mean()), errors, hashlib.sha256(TRUTH.tobytes()).hexdigest(), size)

    def one_call(self, exported: Path) -> Callable[[], object]:
        return exported.read_text

    def example(self) -> Mapping[str, np.ndarray]:
        return {}

    def measures(self, evaluation: Evaluation) -> Mapping[str, float]:
        return {"largest_error": float(evaluation.per_case.max())}

    def version_tags(self) -> Mapping[str, str]:
        return {"horizon": "1"}

    def card(self, evaluation: Evaluation, params: Params) -> TaskCard:
        return TaskCard("Forecasts.", "A text.", ["Numbers."], "none", {}, ["Everything else."], ["cell"])


@pytest.fixture
def forecasts(named: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for module in (register, champion):
        monkeypatch.setattr(module, "task_of", lambda _: Forecasts())
    return named


def exported(*errors: float) -> None:
    """Writes forecasts with these errors, and an export.json that describes them."""
    wrong = np.resize(np.array(errors), TRUTH.shape)
    FILE.write_text(" ".join(map(str, TRUTH + wrong)))
    Forecasts().evaluate(FILE).save(EVALUATION)
    metric, path = Forecasts.metric, EXPORT / "export.json"
    record = ExportRecord(
        file=FILE.name,
        test_cases=len(TRUTH),
        test_score=0.0,
        largest_difference=0.0,
        latency_ms={},
        threads=1,
        size_bytes=FILE.stat().st_size,
        params=1,
        model_sha256=file_sha256(FILE),
    )
    record.write(path, metric)
    summary = {"supernet": 1.0, "discretized": 1.0, "valid": 1.0, "best_valid": 1.0}
    scores = {f"{name}_{metric.name}": value for name, value in summary.items()}
    others = {"discretization_gap": 0.0, "epoch": 1, "best_epoch": 1}
    Path("artifacts/search/summary.json").write_text(json.dumps({**scores, **others}))


def test_a_text_file_is_registered_compared_and_served_as_it_is(
    forecasts: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(0.5)
    assert run_stage("register") == 0
    assert registry()["test_squared_error"] == 0.25
    assert registry()["largest_error"] == 0.25
    version = alias(store, forecasts, "champion")
    assert float(version.tags["test_squared_error"]) == 0.25
    assert (version.tags["horizon"], version.tags["largest_error"]) == ("1", "0.2500")
    assert "test_accuracy" not in version.tags
    mlflow.set_tracking_uri(store)
    beside = Path(download_artifacts(artifact_uri=f"models:/{forecasts}@champion"))
    assert (beside / FILE.name).read_bytes() == FILE.read_bytes()
    assert (beside / "model_card.md").read_bytes() == Path("artifacts/model_card.md").read_bytes()
    run = MlflowClient(tracking_uri=store).get_run(version.tags["run_register"])
    assert run.data.metrics["test_squared_error"] == 0.25

    exported(1.0)  # worse, because lower is better
    assert run_stage("register") == 0
    assert registry()["refusals"] == ["test squared error 1 against 0.25 of version 1"]
    exported(0.25)
    assert run_stage("register") == 0
    assert registry()["reason"] == (
        "champion: test squared error 0.0625 against 0.25 of version 1 (p = 0.0078, more than noise)"
    )  # of 2^8 assignments of signs, 2 are as extreme
    assert registry()["compared"]["gain"] == 0.1875
    assert (registry()["compared"]["challenger_better"], registry()["compared"]["champion_better"]) == (8, 0)
    assert (number(store, forecasts), number(store, forecasts, "previous_champion")) == (3, 1)

    capsys.readouterr()
    assert run_champion(run_stage) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"champion of {forecasts}: version 3, test squared error 0.0625",
        f"previous_champion of {forecasts}: version 1, test squared error 0.25",
    ]
    assert run_stage("register") == 0
    assert (
        f"{FILE.name} is already registered as {forecasts} version 3 (the champion)"
        in capsys.readouterr().out
    )


def test_answers_that_are_no_numbers_are_registered_and_refused(
    forecasts: str, run_stage: RunStage, store: str
) -> None:
    exported(float("nan"))
    assert run_stage("register") == 0
    assert registry()["refusals"] == ["its test squared error is nan, not a number"]
    assert (registry()["test_squared_error"], registry()["champion_after"]) == (None, None)
    assert run_champion(run_stage, "1") == 0
    exported(0.5)
    assert run_stage("register") == 0
    assert registry()["refusals"] == [
        "the test squared error of the champion, version 1, is not a number",
        "`python -m stages.champion 2` makes it champion without comparison",
    ]


def test_a_registration_of_a_file_that_is_cut_off_is_completed(
    forecasts: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("the machine stopped")

    exported(0.5)
    for step in ("finalize_logged_model", "create_model_version"):  # both before the version exists
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, step, crash)
            assert run_stage("register") == 1
    with monkeypatch.context() as patched:
        patched.setattr(register, "judged", crash)
        assert run_stage("register") == 1
    assert run_stage("register") == 0
    assert number(store, forecasts) == 1
    assert len(MlflowClient(tracking_uri=store).search_model_versions(f"name = '{forecasts}'")) == 1


def test_test_cases_that_changed_after_the_export_are_one_line(
    named: str, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    export(linear(20))
    assert run_stage("register") == 0
    export(linear(40))
    labels = Path("artifacts/data/test_labels.npy")
    np.save(labels, np.roll(np.load(labels), 1))
    assert run_stage("register") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: register: the test images have changed since the export; run `dvc repro export`"
    )


def test_an_onnx_model_shows_what_it_takes_and_gives(named: str, run_stage: RunStage, store: str) -> None:
    settings(named)
    assert run_stage("register") == 0
    mlflow.set_tracking_uri(store)
    about = get_model_info(f"models:/{named}/1")
    assert about.signature is not None
    assert about.signature.inputs == Schema([TensorSpec(np.dtype("uint8"), (-1, 8, 8, 1), "image")])
    answers = TensorSpec(np.dtype("float32"), (-1, 10), "probabilities")
    assert about.signature.outputs == Schema([answers])
    folder = Path(download_artifacts(artifact_uri=f"models:/{named}/1"))
    example: Any = Model.load(str(folder)).load_input_example(str(folder))
    expected = np.load("artifacts/data/test_images.npy")[:2]
    np.testing.assert_array_equal(np.asarray(example["image"]), expected)


def test_files_are_attached_under_their_paths_in_artifacts(tmp_path: Path) -> None:
    attached = []

    class Client:
        def log_model_artifact(self, *arguments: object) -> None:
            attached.append(arguments)

    class Version:
        source = "models:/m-1"

    paths = ["artifacts/export/a.txt", "artifacts/card.md", "dvc.lock", "artifacts/genotype/cell.png"]
    versions.attach(Client(), Version(), list(map(Path, paths)))  # type: ignore[arg-type]
    folders = [None, None, None, "genotype"]
    assert attached == [("m-1", path, folder) for path, folder in zip(paths, folders, strict=True)]
