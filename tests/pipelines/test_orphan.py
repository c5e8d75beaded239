"""A run whose worker was killed alone goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stages.conftest import ROOT

PROGRAM = """
import sys, time
from pathlib import Path
from rich.console import Console
from pipelines.orphan import outlive_worker
outlive_worker()
console = Console()  # as Prefect's logs are printed; it ends a process whose reader is gone
console.print("begins")
sys.stdin.read()  # until the reader is gone
time.sleep(0.5)
for _ in range(3):
    console.print("goes on")
    print("goes on", file=sys.stderr, flush=True)
Path(sys.argv[1]).touch()
"""


@pytest.mark.parametrize("on_worker", [True, False])
def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path, on_worker: bool) -> None:
    done = tmp_path / "done"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(done)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT__FLOW_RUN_ID": "1" if on_worker else ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    process.stdout.close()
    time.sleep(0.2)
    process.stdin.close()
    assert (process.wait(60) == 0) == on_worker
    assert done.exists() == on_worker
