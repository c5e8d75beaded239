"""Losses of every strategy on both spaces of sequences, and of searches that grow, as they were when last looked at.

``python -m tests.models.sequences.test_golden`` writes them anew, to be done only when a change of the numbers is meant.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.search.program import Found
from models.sequences.spaces import SPACES
from models.training.loop import run
from tests.models.sequences.growing import MODES, growing
from tests.models.sequences.tiny import KINDS, STRATEGIES, search

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "sequences.json"
FIXED = [f"{kind}/{space}/{name}" for kind in KINDS for space in SPACES for name in STRATEGIES]
GROWN = [f"grown/{mode}/ms-darts" for mode in MODES]
CASES = FIXED + GROWN


def found(case: str) -> Found:
    kind, space, name = case.split("/")
    return run(growing(name, space)) if kind == "grown" else search(name, space, kind)


def trace(case: str) -> dict[str, list[float]]:
    """The epochs' losses in float64, and what alpha came to."""
    result = found(case)
    numbers = ("train_loss", "valid_loss", "movement")
    traces = {number: [float(row[number] or 0.0) for row in result.history] for number in numbers}
    alphas = [torch.cat([rows.flatten() for rows in of_epoch.values()]) for of_epoch in result.alphas]
    return traces | {"alpha_norm": [float(alpha[alpha.isfinite()].norm()) for alpha in alphas]}


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
