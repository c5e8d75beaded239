"""dvc.yaml and the keys of checkpoints contain exactly the code that a stage imports, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from models.training.events import silent
from stages import discretize, prepare, retrain, search
from stages.plumbing import versions
from stages.plumbing.code import PLUMBING, code_of, packages_of
from stages.tasks import TASKS
from tests.stages.conftest import ROOT
from tests.stages.processes import repeatable

RunStage = Callable[..., int]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
CODE_FOLDERS = ("models", "stages")


def declared(stage: str, task: str) -> dict[str, set[Path]]:
    """Each dependency in dvc.yaml that is code -> the files that it means for this task."""

    def files(path: Path) -> set[Path]:
        return {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}

    code = [dep for dep in STAGES[stage]["deps"] if dep.split("/")[0] in CODE_FOLDERS]
    return {entry: files(ROOT / entry.replace("${task}", task)) for entry in code}


def known_by_measure(path: Path, task: str, stage: str) -> bool:
    """Whether a file is of the part latency, which a task may lack, so that DVC would refuse it as a dependency.

    The stage measure is always called, and its results have this code in their identity. Others depend on its results.
    """
    called = STAGES[stage].get("always_changed") or "artifacts/latency" in STAGES[stage]["deps"]
    return ROOT / "stages" / task / "latency" in path.parents and bool(called)


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_the_code_that_a_stage_imports_and_no_other(stage: str) -> None:
    used: set[str] = set()
    for task in TASKS:
        entries, imported = declared(stage, task), set(code_of(stage, task))
        watched = {file for files in entries.values() for file in files}
        missing = sorted(path for path in imported - watched if not known_by_measure(path, task, stage))
        assert missing == [], f"imported by {task}, but not among the deps of dvc.yaml"
        used |= {entry for entry, files in entries.items() if files & imported}
    assert sorted(set(declared(stage, "images")) - used) == [], "among the deps of dvc.yaml, but not imported"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_the_packages_that_compute(stage: str) -> None:
    (listed,) = [entry["versions.yaml"] for entry in STAGES[stage]["params"] if isinstance(entry, dict)]
    used = {name for task in TASKS for name in packages_of(stage, task)}
    assert set(listed) == used


def test_the_versions_are_those_of_the_lock() -> None:
    locks = "".join((ROOT / lock).read_text() for lock in versions.LOCKS)
    assert (ROOT / "versions.yaml").read_text() == versions.content(locks)


def names(stage: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in code_of(stage, "images")}


def test_a_log_line_retrains_nothing_but_the_crop_rule_does() -> None:
    for stage in STAGES:
        assert not any(PLUMBING in path.parents for path in code_of(stage, "images"))
    for stage in ("search", "retrain"):
        assert "stages/images/training/inputs.py" in names(stage), "the crop rule"
        assert "models/images/augment.py" in names(stage)
        assert not {"stages/images/views/test.html", "stages/report_page.html"} & names(stage)
        assert not any(name.startswith("stages/images/views/") for name in names(stage))
    assert "stages/images/export/int8.py" not in names("retrain")
    assert {"stages/report_page.html", "stages/images/views/test.html"} <= names("report")


def test_what_only_types_need_is_no_dependency(tmp_path: Path) -> None:
    from stages.plumbing import code

    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx\nelse:\n    import json\n"
        "def late() -> None:\n    import torch\n"
    )
    assert code._imported(file) == {"typing", "json", "torch"}


class Nothing:
    """Stands for a checkpoint or an MLflow run, and saves nothing."""

    id = "none"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: {} if name == "noted" else None


@contextlib.contextmanager
def nothing(*_: Any, **__: Any) -> Iterator[Any]:
    yield Nothing()


@contextlib.contextmanager
def unreported(*_: Any, **__: Any) -> Iterator[Any]:
    yield silent


def test_plumbing_computes_nothing_that_reaches_an_artifact(
    finished: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without checkpoints, tracking, progress, locks and devices the stages write the same artifacts, byte for byte."""
    from stages.plumbing.settings import load

    for stage in (prepare, search, discretize, retrain):
        monkeypatch.setattr(stage, "stage_run", nothing)
        for name, stand_in in (
            ("Checkpoint", lambda *_: Nothing()),
            ("key", lambda *_: ""),
            ("reporting", unreported),
        ):
            if hasattr(stage, name):
                monkeypatch.setattr(stage, name, stand_in)
    Path(".checkpoints").mkdir()
    for stage in (prepare, search, discretize, retrain):
        main = getattr(stage.main, "__wrapped__", stage.main)  # without the processes of several devices
        main(load())
    for made in sorted(path for path in Path("artifacts").rglob("*") if path.is_file()):
        expected = finished / made
        assert repeatable(made) == repeatable(expected), made
    assert Path("artifacts/retrain/weights.safetensors").is_file()
