"""Comparisons of a finished project, in this process."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.training.events import EpochEnd, Event
from models.training.loop import DATA_WAIT
from stages import tasks
from stages.compare import finish, plan, train
from stages.compare.jobs import TRAININGS, Plan, is_done
from stages.plumbing.settings import load
from tests.models.processes import Interrupted


def planned(seeds: str, random: int) -> Plan:
    plan.main(load(), seeds, str(random))
    return Plan.read()


def trained(made: Plan) -> list[str]:
    """Trains what is missing; returns the names of these trainings."""
    names = []
    for arm, seed, key in made.trainings():
        if not is_done(key):
            train.main(load(), key)
            names.append(f"{arm.name}, seed {seed}")
    return names


def finished(monkeypatch: pytest.MonkeyPatch, minutes: str | None = "1.0") -> None:
    """Compares, without latencies, because exporting takes longer than training here."""
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "speed", lambda _: None)
        finish.main(load(), minutes)


def interrupted(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A training that ends after its first epoch has been saved."""
    whole = train._Clock.__call__

    def ends(self: Any, event: Event) -> None:
        whole(self, event)
        if isinstance(event, EpochEnd):
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(train._Clock, "__call__", ends)
        with pytest.raises(Interrupted):
            train.main(load(), key)


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of history.csv without the column in which equal trainings differ."""
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != DATA_WAIT} for row in csv.DictReader(file)]


def results(key: str) -> Iterator[object]:
    """What must be equal in two results of the same training."""
    folder = TRAININGS / key
    yield history(folder)
    yield (folder / "evaluation.safetensors").read_bytes()
