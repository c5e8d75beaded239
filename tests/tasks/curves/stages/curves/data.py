"""Reads what prepare has written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stages.curves.params import METRIC

from stages.plumbing.files import DATA
from stages.records import DataCard


def read_card() -> DataCard:
    return DataCard.read(DATA / "data.json", METRIC)


def read_split(name: str) -> NDArray[np.float32]:
    """Rows (x, y)."""
    return np.load(DATA / f"{name}.npy", allow_pickle=False)
