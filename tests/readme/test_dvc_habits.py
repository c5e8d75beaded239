"""What people who use DVC expect, in a clone with tiny settings: plain commands, a second clone, and experiments."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.readme.user import new_clone, shell, timed, typed, user_environment
from tests.stages.conftest import TINY, write_params

pytestmark = pytest.mark.timeout(1500)  # the whole chain, beside other tests
SETTINGS = {**TINY, "search.epochs": 2, "retrain.epochs": 2, "export.int8_images": 0}
ALWAYS = (
    "measure",
    "register",
    "report",
)  # only the machine and the registry know whether these have anything to do
KEPT = ("data", "search", "genotype", "retrain", "export")  # folders in artifacts/
MOST_SECONDS = 30  # processor time that a chain may take when the run-cache serves it


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the whole chain has run, with its results committed and pushed."""
    folder = new_clone(tmp_path_factory.mktemp("user") / "msdarts")
    write_params(folder / "params.yaml", SETTINGS)
    (folder.parent / "remote").mkdir()
    shell("dvc remote add -q -d storage ../remote", folder)
    shell("dvc repro -q && git add -A && git commit -qm results && dvc push -q", folder)
    return folder


@pytest.fixture
def unchanged(clone: Path) -> Iterator[Path]:
    """The clone as it was committed, which a test leaves so."""
    yield clone
    shell("git checkout -q . && dvc checkout -q --force", clone)


def settings(folder: Path, **changes: object) -> None:
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    write_params(folder / "params.yaml", {**SETTINGS, **keys})


def contents(folder: Path) -> dict[str, str]:
    """The files that stages before register have written -> their hashes."""
    files = [path for name in KEPT for path in (folder / "artifacts" / name).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def champion(folder: Path) -> int:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    return int(client.get_model_version_by_alias("msdarts", "champion").version)


def test_after_a_run_only_what_is_always_called_is_out_of_date(unchanged: Path) -> None:
    status = shell("dvc status", unchanged)
    assert status == "".join(f"{stage}:\n\talways changed\n" for stage in ALWAYS)


def test_a_second_clone_that_pulls_and_runs_changes_nothing_that_a_team_shares(unchanged: Path) -> None:
    other = unchanged.parent / "second"
    subprocess.run(["git", "clone", "-q", str(unchanged), str(other)], check=True)
    (other / ".venv").symlink_to(sys.prefix)
    printed = shell("dvc pull -q && dvc repro", other)
    assert shell("git status --porcelain", other) == ""
    assert re.findall(r"Running stage '(\w+)'", printed) == list(ALWAYS)
    # Its own registry has decided, and says so in files that are its own.
    record = json.loads((other / "artifacts/registry.json").read_text())
    assert record["reason"] == "champion, because there was none before"
    for file in ("model_card.md", "report.html"):
        assert "because there was none before" in (other / "artifacts" / file).read_text()


def test_going_back_to_earlier_settings_is_served_by_the_run_cache(unchanged: Path) -> None:
    settings(unchanged, search__seed=1)
    assert "Running stage 'search'" in shell("dvc repro", unchanged)
    settings(unchanged)
    printed, seconds = timed("dvc repro", unchanged)
    assert re.findall(r"Running stage '(\w+)'", printed) == list(ALWAYS)
    assert re.findall(r"Stage '(\w+)' is cached", printed) == ["search", "discretize", "retrain", "export"]
    assert shell("git status --porcelain", unchanged) == ""
    print(f"going back took {seconds:.1f} s of processor time")
    assert seconds < MOST_SECONDS


def test_a_stage_that_cannot_even_be_imported_leaves_the_earlier_results(unchanged: Path) -> None:
    before = contents(unchanged)
    with (unchanged / "stages/retrain.py").open("a") as file:
        file.write("def broken(:\n")
    command = typed("dvc repro -s retrain")
    done = subprocess.run(command, cwd=unchanged, env=user_environment(unchanged), check=False)
    assert done.returncode != 0
    assert contents(unchanged) == before


@pytest.mark.parametrize(("number", "said"), [(signal.SIGTERM, ""), (signal.SIGINT, "retrain epoch 1/")])
def test_an_interrupted_stage_leaves_the_earlier_results(
    unchanged: Path, number: signal.Signals, said: str
) -> None:
    """While the stage loads its modules, and while it trains."""
    before = contents(unchanged)
    settings(unchanged, retrain__epochs=50)
    process = subprocess.Popen(
        typed("dvc repro -s retrain"),
        cwd=unchanged,
        env=user_environment(unchanged),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    wanted = said or "> python -m stages.retrain"
    while wanted not in (line := process.stdout.readline()):
        assert line, "the process has ended"
    if not said:
        time.sleep(0.3)  # Python has installed its handlers and goes on importing
        assert not (unchanged / "artifacts/retrain").exists(), "DVC has removed it"
    stage(process).send_signal(number)
    process.communicate()
    assert process.returncode != 0
    assert contents(unchanged) == before


def stage(process: subprocess.Popen[str]) -> psutil.Process:
    """The process of the stage that DVC runs."""
    late = time.monotonic() + 30
    while time.monotonic() < late:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.cmdline()[-1:] == ["stages.retrain"]:
                    return child
        time.sleep(0.05)
    raise AssertionError("no stage runs")


def test_experiments_leave_the_champion_and_are_compared_by_few_numbers(unchanged: Path) -> None:
    before = champion(unchanged)
    printed = shell("dvc exp run -n wild-guess -S search.seed=2 -S retrain.epochs=4", unchanged)
    record = json.loads((unchanged / "artifacts/registry.json").read_text())
    assert champion(unchanged) == before
    assert record["aliases"] == ["challenger"] and record["reason"] in printed
    assert record["waits"] is (record["compared"]["gain"] > 0), (
        "with so little training, the gate may refuse it"
    )

    rows = shell("dvc metrics diff --all", unchanged).splitlines()[1:]
    names = [row.split()[1] for row in rows]
    assert {"test_accuracy", "test_balanced_accuracy", "valid_accuracy", "discretization_gap"} <= set(names)
    assert len(names) <= 10 and not any("sha256" in name or "class_" in name for name in names)
    assert not re.search(r"[0-9a-f]{32}", " ".join(rows))

    shown = shell("make experiments ARGS=--csv", unchanged).splitlines()
    columns = next(line for line in shown if line.startswith("Experiment,")).split(",")
    assert {"search.seed", "retrain.epochs", "test_accuracy"} <= set(columns)
    assert len(columns) < 20
    assert any("wild-guess" in line for line in shown)
