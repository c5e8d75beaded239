"""The README's commands, run by a new user: a fresh clone, in order, and what they promise."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

pytestmark = pytest.mark.timeout(1500)  # one of them waits for the whole chain, beside other tests
ROOT = Path(__file__).resolve().parents[1]
# What a test adds to the README's experiments, which are full searches.
SHORT = " -S search.epochs=3 -S search.alpha.warmup_epochs=1 -S retrain.epochs=2"
# Blocks of the README that start with one of these are not run here, and why.
NOT_RUN = {
    "dvc exp run -n cifar10": "downloads CIFAR-10 and takes half an hour",
    "dvc remote": "an address of one's own",
}


def blocks(language: str) -> list[str]:
    """The README's code blocks of that language."""
    return re.findall(
        rf"^```{re.escape(language)}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
    )


def user_environment() -> dict[str, str]:
    """The environment without what MLflow in tests has put into it, and one thread: other tests use the other cores."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line as a user would type it, the environment activated."""
    own = {"DVC_PAGER": "cat", "PREFECT_HOME": str(folder.parent / "prefect")}
    environment = user_environment() | own | variables
    line = f"source .venv/bin/activate; {command}" if not command.startswith("make") else command
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def timed(command: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Runs a line as ``shell`` does; also its seconds of processor time, for other tests use the machine meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = shell(command, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in which `make repro` has run once with the default parameters."""
    folder = tmp_path_factory.mktemp("user") / "msdarts"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    changed = subprocess.run(
        ["git", "diff", "HEAD", "--binary"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    if changed:  # a working tree under development is tested as it stands
        subprocess.run(["git", "apply"], cwd=folder, input=changed, check=True)
    for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        subprocess.run(["git", "config", name, value], cwd=folder, check=True)
    (folder / ".venv").symlink_to(
        sys.prefix
    )  # the environment of the tests is the project's, made from the same lock
    os.utime(folder / "requirements.lock", (0, 0))  # older than the environment: make has nothing to install
    _, seconds = timed("make repro", folder)
    (folder.parent / "seconds").write_text(str(seconds))
    return folder


def test_the_run_is_what_the_readme_promises(clone: Path) -> None:
    metrics = json.loads((clone / "artifacts/retrain/metrics.json").read_text())
    assert metrics["test_accuracy"] >= 0.975
    export = json.loads((clone / "artifacts/export/export.json").read_text())
    assert export["disagreements"] == 0
    assert export["largest_difference"] < 1e-4
    seconds = float((clone.parent / "seconds").read_text())
    print(f"make repro took {seconds:.0f} s")
    assert (
        seconds < 480
    )  # three minutes on two idle cores; the promise is five; here is one core, beside other tests
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert [line for line in status.stdout.splitlines() if line.startswith("??")] == ["?? dvc.lock"]


def test_mlflow_has_one_parent_and_a_child_for_each_stage(clone: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{clone / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'msdarts'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["stage"]: run for run in runs if run is not parent}
    assert set(children) == {"prepare", "search", "discretize", "retrain", "export", "register", "report"}
    for run in runs:
        assert run.info.status == "FINISHED"
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params
        assert client.list_artifacts(run.info.run_id)
    for stage in ("prepare", "search", "retrain", "register"):
        inputs = children[stage].inputs
        assert inputs is not None, stage
        assert inputs.dataset_inputs, stage
    epochs = int(children["search"].data.params["epochs"])
    assert len(client.get_metric_history(children["search"].info.run_id, "valid_accuracy")) == epochs


def test_a_second_repro_changes_nothing_and_is_quick(clone: Path) -> None:
    def state() -> dict[str, bytes]:
        files = [clone / "dvc.lock", *(path for path in (clone / "artifacts").rglob("*") if path.is_file())]
        return {str(path): path.read_bytes() for path in files}

    before = state()
    done, seconds = timed("dvc repro", clone)
    print(f"a second dvc repro took {seconds:.1f} s of processor time")
    assert state() == before
    assert done.stdout.count("didn't change, skipping") == 6
    assert "is already registered as" in done.stdout
    assert seconds < 5  # the promise, on an idle machine


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of class folders with pictures of two sizes, in colour, told apart by where they are bright."""
    draws = np.random.default_rng(0)
    for number in range(60):
        pixels = draws.integers(0, 120, (40 + 8 * (number % 2), 40, 3), np.uint8)
        name = ("left", "right")[number % 4 // 2]
        pixels[:, slice(0, 20) if name == "left" else slice(20, 40)] += 100
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.jpg")
    return tmp_path


def test_every_command(clone: Path, pictures: Path) -> None:
    commands = [
        line for block in blocks("sh") for line in block.strip().splitlines() if line and line[0] != "#"
    ]
    assert "make repro" in commands
    for command in commands:
        if any(command.startswith(start) for start in NOT_RUN) or command in ("make repro", "make test"):
            continue  # run by the fixture, and by whoever runs this
        command = command.replace("$HOME/pictures", str(pictures))
        shell(command + (SHORT if command.startswith("dvc exp run") else ""), clone)


def test_the_six_lines_of_python(clone: Path) -> None:
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 6  # the formatter wants one empty
    (clone / "snippet.py").write_text(program)
    answer = shell("python snippet.py", clone).stdout
    (clone / "snippet.py").unlink()
    assert re.search(r"\d", answer)


@pytest.fixture
def server(clone: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    command, address = request.param
    process = subprocess.Popen(
        ["bash", "-c", f"source .venv/bin/activate; {command}"],
        cwd=clone,
        env=user_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=30)


SERVERS = [tuple(line.split("  # ")) for block in blocks("sh server") for line in block.strip().splitlines()]


@pytest.mark.parametrize("server", SERVERS, indirect=True, ids=[command for command, *_ in SERVERS])
def test_servers_answer(server: str) -> None:
    for _ in range(90):
        try:
            with urllib.request.urlopen(server, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"{server} did not answer within 90 s")


def test_a_clone_that_restored_its_artifacts_ends_with_a_registered_version(
    clone: Path, tmp_path: Path
) -> None:
    remote, other = tmp_path / "remote", tmp_path / "other"
    shell(f"dvc remote add -d -f storage {remote} && dvc push -q", clone)
    shell("git add -A && git commit -qm recorded", clone)
    subprocess.run(["git", "clone", "-q", str(clone), str(other)], check=True)
    shutil.copy(clone / ".dvc/config", other / ".dvc/config")
    (other / ".venv").symlink_to(sys.prefix)
    shell("dvc pull -q", other)
    done = shell("dvc repro", other)
    assert "Running stage 'search'" not in done.stdout
    client = MlflowClient(tracking_uri=f"sqlite:///{other / 'mlflow.db'}")
    version = client.get_model_version_by_alias("msdarts", "champion")
    assert json.loads((other / "artifacts/registry.json").read_text())["version"] == int(version.version)


def test_make_alone_prints_every_target(clone: Path) -> None:
    printed = shell("make", clone).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert sorted(re.findall(r"^make ([a-z-]+) +\S", printed, re.M)) == sorted(targets)


def test_the_readmes_files_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    (tree,) = blocks("text")
    for name in re.findall(r"^(\S+?)/? {2,}", tree, re.M):
        assert (ROOT / name).exists(), name
