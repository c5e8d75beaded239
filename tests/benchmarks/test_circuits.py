from __future__ import annotations

import pytest

from benchmarks import _circuits_report, _circuits_speed, circuits
from models.circuits.objective import restarts_space


def test_the_other_simulator_does_the_same_work() -> None:
    pytest.importorskip("pennylane", reason="pennylane is not installed")
    work = _circuits_speed.Work(3, 6, own_angles=True)
    _, ours = work.once()
    assert work.angles.grad is not None
    gradient = work.angles.grad.clone()
    _, theirs = _circuits_speed.pennylane(work, 6)
    assert 0 < ours == pytest.approx(theirs, abs=1e-6)
    assert gradient.abs().sum() > 0


def test_every_case_can_be_searched() -> None:
    for name, case in circuits.CASES.items():
        circuit, target = case.problem()
        assert circuit.qubits == target.qubits, name
        assert len(restarts_space(circuit, 2).groups) == 2


def test_the_page_has_a_row_per_case_and_the_ratio_to_pennylane() -> None:
    row = {
        "seed": 0,
        "searched": 0.9,
        "tuned": 0.99,
        "operations": ["h(0)"],
        "search_seconds": 1.0,
        "tuning_seconds": 2.0,
    }
    speed = {
        "shared_angles": 0.1, "own_angles": 0.2, "circuits": 256, "ours": 0.01, "pennylane": 0.5,
        "table": {"2": [0.000128, 0.002048, None]}, "machine": "a machine",
    }  # fmt: skip
    page = _circuits_report.page(
        {"found": {"bell": [row, {**row, "tuned": 0.97}], "W-3": []}, "speed": speed}
    )
    assert "| bell | 2 | 0.9000 | 0.9800 | 0.9700 | 0.9900 | 3.0 | `h(0)` |" in page
    assert "50 times as long" in page and "| 2 | 1.0 | 2.0 |  |" in page
