"""Ctrl-C in the first seconds of any command, while it loads its modules: one line and the exit status, no traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stages.conftest import TINY, write_params

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {  # command -> its arguments
    "stages.prepare": [],
    "stages.search": [],
    "stages.discretize": [],
    "stages.retrain": [],
    "stages.export": [],
    "stages.register": [],
    "stages.report": [],
    "stages.champion": [],
    "pipelines.nas": ["--target", "discretize"],
    "pipelines.sweep": [],
    "pipelines.deploy": [],
    "pipelines.task": ["images"],
    "serving": ["--params", "params.yaml", "--port", "0"],
    "models.describe": ["genotype.json"],
    "benchmarks.bench": ["--help"],
    "benchmarks.serve_load": ["--model", "model.onnx"],
    "benchmarks.stability": ["--help"],
}
DELAYS = (0.0, 0.4, 1.5)  # seconds after the command has its handlers
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_params(tmp_path / "params.yaml", TINY)
    (tmp_path / "data").mkdir()
    return tmp_path


def start(folder: Path, command: str, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-m", command, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def handles_sigterm(process: subprocess.Popen[str]) -> bool:
    """Whether the process has a handler for SIGTERM, which Python itself does not install."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_modules_load_is_one_line(folder: Path, command: str, delay: float) -> None:
    process = start(folder, command, *COMMANDS[command])
    while process.poll() is None and not handles_sigterm(process):
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors and "KeyboardInterrupt" not in errors
    if process.returncode == 130:
        name = command.rpartition(".")[2]
        said = [line for line in errors.splitlines() if line.startswith(f"{name}: interrupted by SIGINT")]
        assert len(said) == 1 or command.startswith("pipelines."), errors
    else:  # it had ended before, or Python was about to
        assert delay > 0 and process.returncode in (0, 1, 2, -signal.SIGINT), (
            process.returncode,
            output,
            errors,
        )
    assert not (folder / "artifacts").exists() or command == "stages.prepare"


@pytest.mark.parametrize("command", ["stages.search", "pipelines.nas", "serving", "models.describe"])
def test_sigterm_while_modules_load_is_one_line(folder: Path, command: str) -> None:
    process = start(folder, command, *COMMANDS[command])
    while process.poll() is None and not handles_sigterm(process):
        time.sleep(0.001)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert (
        errors.startswith(f"{command.rpartition('.')[2]}: interrupted by SIGTERM") and errors.count("\n") == 1
    )


def test_where_ctrl_c_is_ignored_it_stays_ignored(folder: Path) -> None:
    """As under nohup, or for a command that a shell has put into the background."""
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); import os; os.execv(sys.executable, sys.orig_argv[:1] + sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-m", "models.describe", "nowhere.json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not handles_sigterm(process):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "nowhere.json: No such file" in errors
