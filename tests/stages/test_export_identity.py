"""The same weights export to the same bytes, whoever exports them, where and when; the origin is beside the file."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from mlflow import MlflowClient

from stages.images.params import METRIC
from stages.plumbing.files import file_sha256
from stages.records import ExportRecord
from tests.stages.conftest import TINY, write_params
from tests.stages.processes import start

RunStage = Callable[..., int]
EXPORT = Path("artifacts/export")


def commit(folder: Path, message: str) -> str:
    """Commits params.yaml in a repository of its own; returns the commit."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (
        ["init", "-q"],
        ["add", "params.yaml"],
        [*author, "commit", "-q", "--allow-empty", "-m", message],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def exported(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / EXPORT).glob("*.onnx"))}


def test_two_exports_of_the_same_weights_are_equal_byte_for_byte(
    finished_copy: Path,
    run_stage: RunStage,
    store: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second") / "deeper"]
    origins = []
    for number, folder in enumerate(folders):
        shutil.copytree(finished_copy / "artifacts", folder / "artifacts")
        shutil.rmtree(folder / EXPORT)
        write_params(folder / "params.yaml", {**TINY, "export.int8_images": 100})
        made_by = commit(folder, f"commit {number}")
        if number == 0:  # in this process, which may have exported before
            monkeypatch.chdir(folder)
            assert run_stage("export") == 0
        else:  # in a new process with other hashes of strings, in another folder
            monkeypatch.setenv("PYTHONHASHSEED", "7")
            process = start("export", folder, store)
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        origins.append(json.loads((folder / EXPORT / "export.json").read_text())["origin"])
        assert origins[-1]["git_commit"] == made_by
    assert origins[0]["git_commit"] != origins[1]["git_commit"]
    assert origins[0]["run_id"] != origins[1]["run_id"]
    first, second = map(exported, folders)
    assert list(first) == ["model.int8.onnx", "model.onnx"]
    assert first == second
    secrets = [value for origin in origins for value in origin.values()]
    secrets += [str(folder) for folder in folders]
    for content in first.values():
        assert not [secret for secret in secrets if secret.encode() in content]


def test_no_part_of_the_file_tells_what_wrote_it(finished_copy: Path) -> None:
    model = onnx.load(EXPORT / "model.onnx")
    graph = model.graph
    assert (model.producer_version, model.doc_string, model.domain, model.model_version) == ("", "", "", 0)
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        assert not part.doc_string
        assert not part.metadata_props


def test_other_weights_or_other_class_names_are_other_bytes(finished_copy: Path, run_stage: RunStage) -> None:
    before = (EXPORT / "model.onnx").read_bytes()
    card = finished_copy / "artifacts/data/data.json"
    content = json.loads(card.read_text())
    card.write_text(json.dumps({**content, "sha256": "f" * 64}))  # other test images, for example
    assert run_stage("export") == 0
    assert (EXPORT / "model.onnx").read_bytes() == before
    card.write_text(json.dumps({**content, "classes": [f"digit {n}" for n in range(10)]}))
    assert run_stage("export") == 0
    assert (EXPORT / "model.onnx").read_bytes() != before
    card.write_text(json.dumps(content))
    write_params(finished_copy / "params.yaml", {**TINY, "retrain.seed": 5})
    for stage in ("retrain", "export"):
        assert run_stage(stage) == 0
    assert (EXPORT / "model.onnx").read_bytes() != before


def test_the_origin_is_in_export_json_and_in_the_tags_of_the_run(
    finished_copy: Path, run_stage: RunStage, store: str
) -> None:
    made_by = commit(finished_copy, "the settings")
    assert run_stage("export") == 0
    origin = ExportRecord.read(EXPORT / "export.json", METRIC).origin
    assert origin is not None
    data = json.loads((finished_copy / "artifacts/data/data.json").read_text())
    assert (origin["git_commit"], origin["data_sha256"]) == (made_by, data["sha256"])
    tags = MlflowClient(tracking_uri=store).get_run(origin["run_id"]).data.tags
    assert (tags["stage"], tags["git_commit"], tags["data_sha256"]) == ("export", made_by, data["sha256"])
    assert tags["model_sha256"] == file_sha256(EXPORT / "model.onnx")


def test_an_export_json_from_before_it_had_an_origin_is_read(finished_copy: Path) -> None:
    path = EXPORT / "export.json"
    content = json.loads(path.read_text())
    del content["origin"]
    path.write_text(json.dumps(content))
    assert ExportRecord.read(path, METRIC).origin is None
