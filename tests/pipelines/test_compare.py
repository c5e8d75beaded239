"""Flow compare: what it is asked for, and a comparison on a real server that is killed, continued and extended."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from pipelines.compare import checked, main
from stages.compare.jobs import TRAININGS
from stages.comparison import COMPARE_JSON, TITLE
from stages.errors import UserError
from tests.pipelines.conftest import SMALL, Server, end, git_project, none_is_left
from tests.stages.conftest import write_params


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--random", "0"], "random is 0; it should be 1 or more, because there is no comparison without"),
        (["--seeds", "0"], "seeds is 0; it should be how many, 1 or more, or a list without repetitions"),
        (
            ["--seeds", "1,1"],
            "seeds is [1, 1]; it should be how many, 1 or more, or a list without repetitions",
        ),
        (["--seeds", "x"], "--seeds is 'x'; it should be a number, or numbers separated by commas"),
        (["--search-minutes", "0"], "search_minutes is 0.0; it should be more than 0"),
        (["-S", "search.seeds=1"], "params.yaml, with the changes asked for: search.seeds is unknown;"),
        ([], "artifacts/genotype/genotype.json is missing; run `make repro` first"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(
    arguments: Sequence[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_params(tmp_path / "params.yaml", SMALL)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: compare: {said}") and line.count("\n") == 1


def test_seeds_are_a_number_or_a_list() -> None:
    assert checked(1, 3, None) == [0, 1, 2]
    assert checked(1, [5, 2], 0.5) == [5, 2]
    with pytest.raises(UserError, match="seeds is \\[-1\\]"):
        checked(1, [-1], None)


@dataclass(frozen=True)
class Compared:
    """A project in which comparisons run as commands, on the tests' server."""

    project: Path
    environment: Mapping[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.compare", *arguments],
            cwd=self.project,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """The output of the command, which must end with this status."""
        process = self.start(*arguments)
        try:
            said = process.communicate(timeout=500)[0]
        finally:
            end(process)
        assert process.returncode == status, said[-3000:]
        return said

    def trainings(self) -> dict[str, float]:
        """Key of every training that has a result -> when the result was written."""
        found = (self.project / TRAININGS).glob("*/result.json")
        return {path.parent.name: path.stat().st_mtime for path in found}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Compared:
    """A project in which all stages have run."""
    folder = tmp_path_factory.mktemp("compare") / "project"
    git_project(folder)
    write_params(folder / "params.yaml", {**SMALL, "search.epochs": 2, "retrain.epochs": 3})
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=server.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return Compared(folder, server.environment)


def test_a_killed_comparison_continues_and_a_larger_one_trains_only_what_is_new(
    compared: Compared, server: Server
) -> None:
    project = compared.project
    killed = compared.start("--random", "1", "--seeds", "1", "--workers", "1")
    late = time.monotonic() + 300
    while not compared.trainings():
        assert killed.poll() is None and time.monotonic() < late
        time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert none_is_left(project, 60), "trainings end with the flow"
    first = compared.trainings()

    compared.run("--random", "1", "--seeds", "1")
    second = compared.trainings()
    assert len(second) == 4 and first.items() <= second.items()
    content = json.loads((project / COMPARE_JSON).read_text())
    names = [arm["name"] for arm in content["others"]]
    assert names == ["random 1", "ResNet-20", "MobileNetV2-like"]
    assert content["search_minutes"] > 0 and content["best_of"]["cells"] == 1
    assert all(arm["latency_ms"] > 0 for arm in content["others"])
    for file in ("artifacts/model_card.md", "artifacts/report.html"):
        text = (project / file).read_text()
        assert TITLE in text and "random cell of the same space" in text

    compared.run("--random", "2", "--seeds", "1")
    third = compared.trainings()
    assert len(third) == 5 and second.items() <= third.items()

    mlflow = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (experiment,) = [e for e in mlflow.search_experiments() if e.name == "msdarts"]
    (run,) = mlflow.search_runs([experiment.experiment_id], "tags.stage = 'compare'")
    assert {"percentile", "lead_over_random", "lead_over_ResNet-20_low"} <= set(run.data.metrics)
    children = mlflow.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    )
    assert {child.data.tags["training"] for child in children} >= set(third)
    artifacts = server.client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["compare"]))
    )
    assert any(TITLE in str(artifact.data) for artifact in artifacts)


def test_a_cell_that_is_out_of_date_is_one_line(compared: Compared, tmp_path: Path) -> None:
    params = compared.project / "params.yaml"
    shutil.copy(params, tmp_path / "params.yaml")
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 1"))
    try:
        said = compared.run("--random", "1", status=2)
    finally:
        shutil.copy(tmp_path / "params.yaml", params)
    assert "is not up to date with params.yaml and the code; run `make repro` first" in said
