"""Two processes that share every batch get the results of one process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.models.processes import CASES, IN_BFLOAT16, RESUMED

# In float64 only the order of additions differs. The difference is largest in the auxiliary head, whose batch
# norms see one pixel of four images: 3e-10 there, 1e-14 elsewhere.
TOLERANCE = 1e-8

Two = list[dict[str, Any]]  # what each process found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("two")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.models.processes", str(rank), "2", str(folder)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def numbers(found: Any) -> list[float]:
    """All numbers in nested dicts and lists, in their order; nan for None."""
    if isinstance(found, dict | list):
        values = found.values() if isinstance(found, dict) else found
        return [number for value in values for number in numbers(value)]
    return [math.nan if found is None else found]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_what_one_finds(two: Two, case: str) -> None:
    one = json.loads(json.dumps(CASES[case]()))
    assert one.keys() == two[0][case].keys()
    for part, expected in one.items():
        found = numbers(two[0][case][part])
        assert found == pytest.approx(numbers(expected), rel=TOLERANCE, abs=TOLERANCE, nan_ok=True), part


@pytest.mark.parametrize("case", CASES)
def test_both_processes_stay_equal(two: Two, case: str) -> None:
    assert two[0][case] == two[1][case]


@pytest.mark.parametrize("case", RESUMED)
def test_two_processes_resume_bit_identically(two: Two, case: str) -> None:
    assert two[0][f"{case}, resumed"] == two[0][case]


@pytest.mark.parametrize("case", IN_BFLOAT16)
def test_two_processes_compute_in_bfloat16(two: Two, case: str) -> None:
    """Losses of the first epoch are near those of one process. Measured: at most 1.3% apart."""
    found, other = (of_process[f"{case}, bfloat16"] for of_process in two)
    assert found == other
    one = IN_BFLOAT16[case]()
    loss, expected = (each["history"][0]["train_loss"] for each in (found, one))
    assert loss == pytest.approx(expected, rel=0.05) and loss != expected


def test_a_batch_that_cannot_be_shared_equally_is_refused(two: Two) -> None:
    message = "a batch of 3 cases cannot be divided equally between 2 devices; set a batch size that is"
    assert two[0]["uneven"].startswith(message)
