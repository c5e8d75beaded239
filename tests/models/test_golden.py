"""Losses of every strategy on every space, as they were when last looked at: a pure refactoring leaves them alone.

``python -m tests.models.test_golden`` writes them anew, to be done only when a change of the numbers is meant.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.images.spaces import SPACES
from tests.models.tiny import STRATEGIES, search

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "search.json"
CASES = [f"{space}/{name}" for space in SPACES for name in STRATEGIES]


def trace(case: str) -> dict[str, list[float]]:
    """Two epochs of two steps in float64, and what alpha came to."""
    space, _, name = case.partition("/")
    found = search(name, space)
    numbers = ("train_loss", "valid_loss", "movement")
    traces = {number: [float(row[number] or 0.0) for row in found.history] for number in numbers}
    alphas = [torch.cat([rows.flatten() for rows in of_epoch.values()]) for of_epoch in found.alphas]
    return traces | {"alpha_norm": [float(alpha.norm()) for alpha in alphas]}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_golden_ones(case: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert list(golden) == CASES
    for number, values in trace(case).items():
        assert values == pytest.approx(golden[case][number], rel=1e-9, abs=1e-9), number


def regenerate() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    traces = {case: trace(case) for case in CASES}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(traces[case])}" for case in CASES)
    GOLDEN.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    regenerate()
