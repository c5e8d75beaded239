"""The README's DVC commands, in order, in a clone of their own: a user's images, then experiments on them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.readme.user import commands, new_clone, shell

pytestmark = pytest.mark.timeout(900)
# What these tests add to the README's experiments, which are full searches.
SHORT = {
    "search.epochs": 2,
    "search.alpha.warmup_epochs": 1,
    "search.channels": 4,
    "search.curvature_images": 16,
    "retrain.epochs": 2,
    "retrain.channels": 4,
    "export.latency_repeats": 5,
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of class folders with pictures of two sizes, in colour, told apart by where they are bright."""
    draws = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for number in range(60):
        pixels = draws.integers(0, 120, (40 + 8 * (number % 2), 40, 3), np.uint8)
        name = ("left", "right")[number % 4 // 2]
        pixels[:, slice(0, 20) if name == "left" else slice(20, 40)] += 100
        (folder / name).mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


def test_every_dvc_command(pictures: Path, tmp_path: Path) -> None:
    clone = new_clone(tmp_path / "msdarts")
    short = "".join(f" -S {name}={value}" for name, value in SHORT.items())
    printed: dict[str, str] = {}
    for command in commands("other"):
        line = command.replace("$HOME/pictures", str(pictures))
        printed[command] = shell(line + (short if line.startswith("dvc exp run") else ""), clone)

    runs = [command for command in printed if command.startswith("dvc exp run")]
    own, seed = runs
    assert "imagefolder" in own
    assert "images [32, 32, 3]" in printed[own]
    data = json.loads((clone / "artifacts/data/data.json").read_text())
    assert data["classes"] == ["left", "right"]
    assert sum(data["counts"].values()) == 60
    # The second experiment is of the same images, with what it names changed and no more.
    assert "search.seed=3" in seed
    assert "Running stage 'prepare'" not in printed[seed]
    assert "Running stage 'search'" in printed[seed]
    # What was shown is what is there: the accuracy of both experiments, and both stages' curves.
    accuracy = json.loads((clone / "artifacts/retrain/metrics.json").read_text())["test_accuracy"]
    shown = printed["make experiments"]
    assert len(re.findall(r"[├└]── ", shown)) == len(runs)
    assert re.search(rf"{accuracy:.5g}", shown)
    assert "test_accuracy" in printed["dvc metrics diff"]
    page = (clone / "dvc_plots/index.html").read_text()
    assert "Search, score by epoch" in page and "Retraining, score by epoch" in page
    for stage in ("prepare", "measure", "search", "discretize", "retrain", "export", "register", "report"):
        assert f"| {stage} |" in printed["dvc dag"]
