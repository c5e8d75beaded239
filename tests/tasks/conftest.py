"""The tasks of the contract tests: those of the project, and one that exists only in the tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import models
import stages
from stages.tasks import TASKS, missing
from tests.stages.conftest import TINY, common, run_here, store  # noqa: F401
from tests.stages.processes import ROOT

CURVES = Path(__file__).parent / "curves"
CHAIN = ("prepare", "measure", "search", "discretize", "retrain", "export", "register", "report")
ALL = [*TASKS, "curves"]
SMALL: dict[str, dict[str, Any]] = {  # changes that make a profile small
    "images": TINY,
    "circuits": {"search.epochs": 5, "search.restarts": 2, "retrain.epochs": 4, "retrain.starts": 3},
    "sequences": {
        "data.lookback": 8,
        "data.horizon": 2,
        "data.stride": 24,
        "search.epochs": 3,
        "search.nodes": 3,
        "search.hidden": 4,
        "search.windows": 128,
        "search.growth.every": 1,
        "search.alpha.warmup_epochs": 0,
        "search.curvature_windows": 4,
        "retrain.epochs": 3,
        "retrain.hidden": 5,
        "retrain.windows": 4096,
        "export.latency_repeats": 1,
    },
}


def profile(task: str) -> Path:
    """The complete params.yaml of a task."""
    if task == "curves":
        return CURVES / "profiles" / "curves.yaml"
    return ROOT / "params.yaml" if task == "images" else ROOT / "profiles" / f"{task}.yaml"


@pytest.fixture(scope="session", autouse=True)
def curves_beside_the_others() -> Iterator[None]:
    """Makes the task curves available as if its folders were in models/ and stages/ and its line in TASKS."""
    tasks: dict[str, str] = TASKS  # pyright: ignore[reportAssignmentType]
    for package, folder in ((models, "models"), (stages, "stages")):
        package.__path__.append(str(CURVES / folder))
    tasks["curves"] = "stages.curves"
    yield
    del tasks["curves"]
    for package in (models, stages):
        package.__path__.pop()


def write_profile(task: str, path: Path, **changes: Any) -> None:
    """The profile of a task at its smallest size, with dotted keys changed."""
    yaml = YAML(typ="safe")
    content = yaml.load(profile(task))
    for key, value in {**SMALL.get(task, {}), **changes}.items():
        *sections, name = key.split(".")
        node = content
        for section in sections:
            node = node[section]
        node[name] = value
    yaml.dump(content, path)


def run(stage: str) -> int:
    """Runs a stage in this process, in the current folder."""
    return run_here(stage, import_module(f"stages.{stage}").main)


@pytest.fixture(scope="module", params=ALL)
def task(request: pytest.FixtureRequest) -> str:
    if lacking := missing(request.param):
        pytest.skip(f"{', '.join(lacking)} not installed; `make {request.param}` installs what is needed")
    return request.param


@pytest.fixture(scope="module")
def finished_chain(
    task: str,
    tmp_path_factory: pytest.TempPathFactory,
    store: str,  # noqa: F811
) -> Iterator[Path]:
    """A project of the task in which all eight stages have run, as the current folder. Do not change its files."""
    folder = tmp_path_factory.mktemp(task)
    write_profile(task, folder / "params.yaml", **{"registry.name": f"contract-{task}"})
    (folder / "data").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")  # MLflow takes one per process
        assert [run(stage) for stage in CHAIN] == [0] * len(CHAIN)
        yield folder
