"""Points on a noisy sine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stages.curves.params import Params

from stages.plumbing.files import sha256_of
from stages.records import DataCard


def prepare(params: Params, folder: Path) -> DataCard:
    data = params.data
    source = np.random.default_rng(data.seed)
    x = source.uniform(-2, 2, data.points)
    points = np.stack([x, np.sin(3 * x) + data.noise * source.normal(size=data.points)], axis=1)
    parts = np.split(points.astype(np.float32), [data.points // 2, 3 * data.points // 4])
    for name, part in zip(("train", "val", "test"), parts, strict=True):
        np.save(folder / f"{name}.npy", part)
    counts = {name: len(part) for name, part in zip(("train", "val", "test"), parts, strict=True)}
    return DataCard(name=data.name, counts=counts, sha256=sha256_of(*sorted(folder.iterdir())))
