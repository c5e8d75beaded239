"""A small project of series or text whose network has been retrained, as the current folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from models.training.loop import run
from models.training.trained import Trained
from stages.genotypes import read_genotype
from stages.plumbing.files import DATA, GENOTYPE, RETRAIN, write_json
from stages.plumbing.settings import load
from stages.sequences.params import Params, metric
from stages.sequences.prepare import prepare
from stages.sequences.training import retrain
from tests.stages.processes import ROOT
from tests.stages.sequences.making import hourly

NODES: list[dict[str, Any]] = [
    {"left": ["sigmoid", 1], "right": ["identity", 0], "combiner": "product"},
    {"left": ["relu", 2], "right": ["tanh", 1], "combiner": "sum"},
]
TRAINING: dict[str, Any] = {
    "retrain.epochs": 2,
    "retrain.batch_size": 16,
    "retrain.hidden": 5,
    "retrain.embedding": 4,
    "retrain.windows": 48,
    "search.epochs": 3,
    "search.batch_size": 8,
    "search.nodes": 3,
    "search.hidden": 4,
    "search.embedding": 4,
    "search.windows": 32,
    "search.growth.every": 1,
    "search.alpha.warmup_epochs": 0,
    "search.curvature_windows": 4,
    "export.latency_repeats": 1,
}
SERIES: dict[str, Any] = {
    "data.name": "csv",
    "data.root": "table.csv",
    "data.time": "time",
    "data.targets": ["load", "price"],
    "data.covariates": ["heat"],
    "data.lookback": 12,
    "data.horizon": 4,
    "data.season": 24,
    "data.valid_fraction": 0.2,
    "data.test_fraction": 0.2,
}
TEXT: dict[str, Any] = {
    "data.name": "text",
    "data.root": "book.txt",
    "data.unit": "characters",
    "data.chunk": 10,
    "data.valid_fraction": 0.2,
    "data.test_fraction": 0.2,
}


def waves(rows: int, level: float = 0.0) -> str:
    """A table of three columns: two waves of a day around ``level``, and another one."""
    noise = np.random.default_rng(0).normal(size=(rows, 3))
    lines = ["time,load,price,heat"]
    for row, time in enumerate(hourly(rows)):
        day = math.sin(2 * math.pi * row / 24)
        values = (level + 10 * day + noise[row, 0], level + 2 - day + 0.1 * noise[row, 1], noise[row, 2])
        lines.append(",".join([time, *(f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"


def book(letters: int) -> str:
    """Syllables in random order."""
    source = np.random.default_rng(1)
    return "".join(source.choice(["la", "lo ", "mi", "ru. "], size=letters // 2))[:letters]


def project(kind: str, changes: dict[str, Any] | None = None, content: str | None = None) -> Params:
    """Prepares data in the current folder and writes a genotype."""
    settings = {**(SERIES if kind == "series" else TEXT), **TRAINING, **(changes or {})}
    made = content or (waves(600) if kind == "series" else book(4000))
    Path(settings["data.root"]).write_text(made)
    params = load(ROOT / "profiles" / "sequences.yaml", settings)
    assert isinstance(params, Params)
    DATA.mkdir(parents=True)
    card = prepare(params, DATA)
    card.write(DATA / "data.json", metric(params))
    GENOTYPE.mkdir()
    write_json(GENOTYPE / "genotype.json", {"space": "two-input", "nodes": NODES})
    return params


def trained(params: Params) -> Trained:
    """Retrains, and writes the weights."""
    found = run(retrain(params, read_genotype("sequences")))
    RETRAIN.mkdir(exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in found.weights.items()}, RETRAIN / "weights.safetensors")  # fmt: skip
    return found
