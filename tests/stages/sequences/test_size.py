"""100,000 rows of 20 variables are prepared in seconds and in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.processes import ROOT

ROWS, VARIABLES = 100_000, 20
PROGRAM = """
import re, sys, time
from pathlib import Path
from stages.plumbing.settings import load
from stages.sequences.prepare import prepare
names = [f"v{number}" for number in range(20)]
changes = {"name": "csv", "root": sys.argv[1], "time": "time", "targets": names[:2], "covariates": names[2:]}
params = load(Path("profiles/sequences.yaml"), {f"data.{name}": value for name, value in changes.items()})
started = time.process_time()
card = prepare(params, Path(sys.argv[2]))
# Not ru_maxrss, in which a process begins with what the one that started it had.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(time.process_time() - started, int(peak[1]) / 1e6, card.rows[0][-1])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of the memory is read from Linux's /proc"
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_large_table_takes_seconds_and_little_memory(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).normal(size=(ROWS, VARIABLES)).round(6)
    frame = pd.DataFrame(values, columns=[f"v{number}" for number in range(VARIABLES)])
    frame.insert(0, "time", pd.date_range("2015-01-01", periods=ROWS, freq="h"))
    path = tmp_path / f"large.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    (tmp_path / "out").mkdir()
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    seconds, gigabytes, rows = map(float, made.stdout.split())
    assert rows == ROWS
    assert seconds < 20 and gigabytes < 1.0, made.stdout
