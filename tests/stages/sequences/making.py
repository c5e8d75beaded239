"""Small tables and texts, and what prepare makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.errors import UserError
from stages.plumbing.settings import load
from stages.sequences.data import SequenceCard
from stages.sequences.params import Params
from stages.sequences.prepare import prepare
from tests.stages.processes import ROOT

SMALL: dict[str, Any] = {
    "data.name": "csv",
    "data.time": "time",
    "data.targets": ["y"],
    "data.covariates": [],
    "data.lookback": 4,
    "data.horizon": 2,
    "data.season": 1,
    "data.longest_gap": 2,
    "data.valid_fraction": 0.2,
    "data.test_fraction": 0.2,
}


def settings(**changes: Any) -> Params:
    """The profile's settings with keys of the section data changed."""
    changed = {**SMALL, **{f"data.{name}": value for name, value in changes.items()}}
    params = load(ROOT / "profiles" / "sequences.yaml", changed)
    assert isinstance(params, Params)
    return params


class Prepared:
    """What prepare has written."""

    def __init__(self, folder: Path, card: SequenceCard):
        self.folder, self.card = folder, card

    def __getitem__(self, name: str) -> NDArray[Any]:
        return np.load(self.folder / f"{name}.npy", allow_pickle=False)


def prepared(folder: Path, content: str | bytes | Path, file: str = "table.csv", **changes: Any) -> Prepared:
    """What prepare makes of a table with this content, or of a file."""
    path = content if isinstance(content, Path) else folder / file
    if not isinstance(content, Path):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = folder / f"out{len(list(folder.glob('out*')))}"
    out.mkdir()
    return Prepared(out, prepare(settings(root=str(path), **changes), out))


def refusal(folder: Path, content: str | bytes | Path, file: str = "table.csv", **changes: Any) -> str:
    """The one line with which a table is refused, without the path of its folder."""
    with pytest.raises(UserError) as error:
        prepared(folder, content, file, **changes)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{folder}/", "")


def hourly(rows: int, *, start: str = "2026-01-01", step: str = "h") -> list[str]:
    """Times of ISO 8601."""
    times = np.datetime64(start, "s") + np.arange(rows) * np.timedelta64(1, step)
    return [str(time).replace("T", " ") for time in times]


def table(times: Sequence[str], *columns: Sequence[Any], header: str = "time,y") -> str:
    """CSV of times and columns."""
    lines = [",".join(map(str, row)) for row in zip(times, *columns, strict=True)]
    return "\n".join([header, *lines]) + "\n"


def waves(rows: int, seed: int = 0) -> list[float]:
    """Numbers that go up and down."""
    noise = np.random.default_rng(seed).normal(size=rows)
    return [round(float(value), 4) for value in 10 + 3 * np.sin(np.arange(rows)) + noise]
