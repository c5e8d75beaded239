"""What a long stage prints without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.training.events import EpochEnd, Measuring, StepEnd
from stages.plumbing import progress as progressing
from stages.plumbing.progress import EpochProgress


def test_a_measurement_speaks_only_when_nothing_was_said_for_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = 1000.0
    monkeypatch.setattr(progressing.time, "monotonic", lambda: clock)
    with EpochProgress("search", ("train_loss",)) as progress:
        progress.step(StepEnd(1, 1, 1, 1))
        progress.epoch(EpochEnd(1, 1, {"train_loss": 2.5}, dict))
        assert capsys.readouterr().out.startswith("search epoch 1/1  train_loss 2.5")
        said = []
        for product in range(1, 8):
            clock += 9
            progress.measuring(Measuring("Hessian eigenvalue, product", product, 50))
            said.append(capsys.readouterr().out)
    assert said[2::3] == [f"search: Hessian eigenvalue, product {done} of at most 50\n" for done in (3, 6)]
    assert "".join(said) == said[2] + said[5]
