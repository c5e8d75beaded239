"""A network is one version, whoever exports it again; one that was rolled back stays so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from onnx import helper, numpy_helper

from serving.registry import Registry
from stages.plumbing.files import file_sha256, sha256_of
from stages.registry.identity import network_sha256
from tests.stages.networks import EXPORT, export, linear
from tests.stages.registering import (
    BAD,
    GOOD,
    RunStage,
    alias,
    int8_of,
    number,
    registry,
    run_champion,
)
from tests.stages.test_export_identity import commit

FILE = EXPORT / "model.onnx"
BACK = "not promoted: version 2 was rolled back; `python -m stages.champion 2` makes it champion again"


def as_before(model: onnx.ModelProto, run: str) -> onnx.ModelProto:
    """The network as export wrote it when the file still said where it came from."""
    model.producer_name, model.producer_version = "pytorch", "2.9.0"
    helper.set_model_props(model, {"run_id": run, "git_commit": run * 2, "data_sha256": "d" * 64})
    return model


def forget(store: str, name: str, *tags: str) -> None:
    """Takes tags from all versions: those that versions from before did not have."""
    client = MlflowClient(tracking_uri=store)
    for version in client.search_model_versions(f"name = '{name}'"):
        for tag in tags:
            client.delete_model_version_tag(name, str(version.version), tag)


def versions(store: str, name: str) -> int:
    return len(MlflowClient(tracking_uri=store).search_model_versions(f"name = '{name}'"))


def test_a_network_that_was_rolled_back_does_not_return_by_another_export_or_retraining(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the real stages: A, B, back to A, and B is made again by other runs and another commit."""
    real = FILE.read_bytes()
    export(linear(GOOD, sharpness=-30.0))  # right where a good network is least sure: almost never
    assert run_stage("register") == 0
    commit(Path(), "before")
    assert run_stage("export") == 0
    assert FILE.read_bytes() == real
    first = json.loads((EXPORT / "export.json").read_text())["origin"]
    assert run_stage("register") == 0
    assert (number(store, named), number(store, named, "previous_champion")) == (2, 1)
    assert run_champion(run_stage, "back") == 0

    commit(Path(), "after")
    for stages in (["export"], ["retrain", "export"]):
        for stage in stages:
            assert run_stage(stage) == 0
        again = json.loads((EXPORT / "export.json").read_text())["origin"]
        assert (again["run_id"] != first["run_id"], again["git_commit"] != first["git_commit"]) == (
            True,
            True,
        )
        capsys.readouterr()
        assert run_stage("register") == 0
        assert capsys.readouterr().out == (
            f"register: model.onnx is already registered as {named} version 2, which was rolled back (the champion"
            " is version 1); `python -m stages.champion 2` makes it champion again\n"
        )
        report = registry()
        assert (report["version"], report["promoted"], report["reason"]) == (2, False, BACK)
        assert (report["champion_after"], report["aliases"]) == (1, ["challenger"])
        assert (number(store, named), versions(store, named)) == (1, 2)
        run = MlflowClient(tracking_uri=store).get_run(again["run_id"])  # the version is found from there
        assert f"{named}/2" in run.data.tags["registered_as"].split()

    assert run_champion(run_stage, "2") == 0
    capsys.readouterr()
    assert run_stage("register") == 0
    assert capsys.readouterr().out.endswith("version 2 (the champion)\n")
    assert (registry()["promoted"], registry()["reason"][:10]) == (True, "champion: ")


def test_files_that_say_where_they_come_from_are_found_by_their_network(
    named: str, run_stage: RunStage, store: str
) -> None:
    """A registry from before, with a network that was rolled back and came back as another version."""
    for version, (pixels, run) in enumerate([(BAD, "1"), (GOOD, "2"), (GOOD, "3")], 1):
        export(as_before(linear(pixels, sharpness=30.0 + version), run * 20))
        if version == 3:  # the same network as version 2
            export(as_before(linear(pixels, sharpness=32.0), run * 20))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("stages.registry.versions.network_sha256", sha256_of)
                assert run_stage("register") == 0
        else:
            assert run_stage("register") == 0
        forget(store, named, "network_sha256")
    assert (registry()["version"], number(store, named), versions(store, named)) == (3, 2, 3)
    kept = FILE.read_bytes()  # of version 3, which was refused as the equal of version 2
    assert run_champion(run_stage, "back") == 0

    for content in (linear(GOOD, sharpness=32.0).SerializeToString(), kept):
        export(onnx.load_from_string(content))
        assert run_stage("register") == 0
        assert (registry()["version"], registry()["reason"]) == (2, BACK)
        assert (number(store, named), versions(store, named)) == (1, 3)
    export(linear(GOOD, sharpness=29.0))  # another network is compared with the older file as before
    assert run_stage("register") == 0
    assert (registry()["version"], registry()["promoted"], registry()["compared"] is None) == (4, True, False)
    assert number(store, named) == 4


def test_an_older_version_whose_file_is_lost_stops_nobody(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    export(linear(GOOD))
    assert run_stage("register") == 0
    forget(store, named, "network_sha256")
    location = MlflowClient(tracking_uri=store).get_model_version_download_uri(named, "1")
    for file in Path(location.removeprefix("file://")).iterdir():
        file.unlink() if file.is_file() else None
    export(linear(GOOD, "the same network in another file"))
    assert run_stage("register") == 0
    assert (registry()["version"], versions(store, named)) == (2, 2)


def test_a_rollback_holds_even_when_the_version_is_judged_again(
    named: str, run_stage: RunStage, store: str
) -> None:
    for pixels in (BAD, GOOD):
        export(linear(pixels))
        assert run_stage("register") == 0
    assert run_champion(run_stage, "back") == 0
    forget(store, named, "report")  # as a person is told to do when the tag is damaged
    assert run_stage("register") == 0
    assert registry()["reason"].startswith(BACK)
    assert (registry()["promoted"], number(store, named)) == (False, 1)


def test_registry_json_says_when_a_network_has_been_replaced(
    named: str, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    for pixels in (BAD, GOOD, BAD):
        export(linear(pixels))
        assert run_stage("register") == 0
    assert capsys.readouterr().out.endswith("version 1 (the champion is version 2)\n")
    report = registry()
    assert (report["version"], report["promoted"], report["champion_after"]) == (1, False, 2)
    assert report["reason"] == "not promoted: version 1 was champion before; the champion is version 2"


def test_a_refused_network_stays_refused_by_another_export(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for pixels in (GOOD, BAD):
        export(linear(pixels))
        assert run_stage("register") == 0
    before, tag = registry(), alias(store, named, "challenger").tags["report"]
    export(linear(BAD, "another file"))
    capsys.readouterr()
    assert run_stage("register") == 0
    assert capsys.readouterr().out == (
        f"register: model.onnx is already registered as {named} version 2, which was refused (the champion is"
        " version 1)\n"
    )
    assert registry() == before
    assert alias(store, named, "challenger").tags["report"] == tag


def test_other_test_cases_judge_the_same_network_again(named: str, run_stage: RunStage, store: str) -> None:
    for pixels in (BAD, GOOD):
        export(linear(pixels))
        assert run_stage("register") == 0
    for split in ("images", "labels"):
        file = Path(f"artifacts/data/test_{split}.npy")
        np.save(file, np.load(file)[:-9])
    export(linear(GOOD))
    assert run_stage("register") == 0
    assert (registry()["version"], versions(store, named), number(store, named)) == (2, 2, 2)
    assert registry()["reason"] == (
        "already champion, although it cannot be compared with version 1, which it replaced"
    )
    export(
        linear(GOOD, sharpness=29.0)
    )  # the champion has a result on these images, so that others can be compared
    assert run_stage("register") == 0
    assert registry()["compared"]["p_value"] == 1


@pytest.mark.parametrize("included", [True, False])
def test_an_int8_file_that_is_exported_later_joins_the_version(
    named: str, run_stage: RunStage, store: str, included: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = EXPORT / "export.json", EXPORT / "model.int8.onnx"
    export(linear(GOOD))
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "int8"}))
    assert run_stage("register") == 0
    assert "int8" not in alias(store, named, "champion").tags
    export(linear(GOOD if included else BAD, "stands in for the quantized one"))
    FILE.rename(kept)
    export(linear(GOOD), int8=int8_of(file_sha256(kept)))
    capsys.readouterr()
    for _ in range(2):
        assert run_stage("register") == 0
    gets = "gets model.int8.onnx" if included else "stays without int8"
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"register: version 1 {gets}: int8 costs ")
    assert others == [f"register: model.onnx is already registered as {named} version 1 (the champion)"] * 2
    assert (registry()["version"], registry()["int8"]["included"], versions(store, named)) == (1, included, 1)
    assert (alias(store, named, "champion").tags["int8"] == "included") is included
    mlflow.set_tracking_uri(store)
    beside = Path(download_artifacts(artifact_uri=f"models:/{named}/1"))
    assert (beside / "model.int8.onnx").exists() is included


def test_a_version_keeps_its_int8_file(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = EXPORT / "model.int8.onnx"
    for note in ("one", "another"):
        export(linear(GOOD, note))
        FILE.rename(kept)
        export(linear(GOOD), int8=int8_of(file_sha256(kept)))
        capsys.readouterr()
        assert run_stage("register") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "register: version 1 keeps the model.int8.onnx that it was registered with; delete the version and run"
        " `dvc repro` to register it again"
    ]


def test_the_server_shows_the_origin_that_register_wrote(named: str, run_stage: RunStage, store: str) -> None:
    assert run_stage("register") == 0
    registered = Registry(named, "champion", 1)
    model = registered.load(registered.current())  # which also checks the answers that register stored
    report = registry()
    assert model.sha256 == report["model_sha256"] == file_sha256(EXPORT / "model.onnx")
    runs = {f"run_{stage}": run for stage, run in report["runs"].items()}
    known = {"git_commit": report["git_commit"], "data_sha256": report["data_sha256"], **runs}
    assert dict(model.origin.known) == known
    assert not {"git_commit", "run_id", "data_sha256"} & set(model.metadata)


def heavier(model: onnx.ModelProto) -> None:
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    values = numpy_helper.to_array(weights).copy()
    values[0, 0] += 1e-6
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))


def colder(model: onnx.ModelProto) -> None:
    model.graph.node[-1].attribute[0].i = 0


def renamed_classes(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {"class_names": json.dumps([str(n) for n in reversed(range(10))])})


def origin(model: onnx.ModelProto) -> None:
    as_before(model, "7" * 20)


def remarks(model: onnx.ModelProto) -> None:
    model.doc_string, model.graph.name, model.graph.node[0].doc_string = (
        "a remark",
        "renamed",
        "/home/someone",
    )
    model.graph.node[1].name = "node_17"
    model.graph.value_info.append(helper.make_tensor_value_info("flat", 1, ["batch", 64]))


@pytest.mark.parametrize(
    ("change", "same"),
    [(heavier, False), (colder, False), (renamed_classes, False), (origin, True), (remarks, True)],
)
def test_what_computes_the_answer_is_the_network(
    finished_copy: Path, change: Callable[[onnx.ModelProto], None], same: bool, tmp_path: Path
) -> None:
    files = []
    for name, changes in (("a", ()), ("b", (change,))):
        model = linear(GOOD)
        for apply in changes:
            apply(model)
        files.append(tmp_path / f"{name}.onnx")
        onnx.save(model, files[-1])
    assert files[0].read_bytes() != files[1].read_bytes()
    assert (network_sha256(files[0]) == network_sha256(files[1])) is same


def test_a_file_that_is_no_model_is_its_bytes(tmp_path: Path) -> None:
    for name in ("broken.onnx", "circuit.qasm"):
        (file := tmp_path / name).write_text("this is no model")
        assert network_sha256(file) == sha256_of(file)
