"""Prepares a folder or a file as the stage does, and returns what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages.images.data import ImageCard
from stages.images.params import Params
from stages.images.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Prepared:
    """What the stage wrote."""

    card: ImageCard
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]

    @property
    def all_images(self) -> np.ndarray:
        """The images of all splits, sorted by their bytes."""
        return np.stack(sorted(np.concatenate(list(self.images.values())), key=bytes))

    def of_class(self, name: str) -> np.ndarray:
        """All images of one class."""
        label = self.card.classes.index(name)
        return np.concatenate([self.images[split][self.labels[split] == label] for split in self.images])

    @property
    def notices(self) -> str:
        return "\n".join(self.card.notices())


Prepare = Callable[..., Prepared]


@pytest.fixture
def zoo(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Prepares ``root``; settings of section data are given by name."""
    work = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(work)
    runs: list[Path] = []

    def prepared(root: Path, name: str = "imagefolder", **settings: Any) -> Prepared:
        content = YAML(typ="safe").load(ROOT / "params.yaml")
        content["data"] |= {"name": name, "root": str(root), **settings}
        folder = work / f"out{len(runs)}"
        folder.mkdir()
        runs.append(folder)
        card = prepare(Params.model_validate(content), folder)
        splits = ("train", "val", "test")
        return Prepared(
            card,
            {split: np.load(folder / f"{split}_images.npy") for split in splits},
            {split: np.load(folder / f"{split}_labels.npy") for split in splits},
        )

    return prepared


def picture(
    seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", low: int = 0, high: int = 256
) -> Image.Image:
    """Random pixels, another picture for every seed."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(low, high, (size[1], size[0], *channels), np.uint8)
    return Image.fromarray(pixels, mode) if mode == "CMYK" else Image.fromarray(pixels)


def fill(folder: Path, count: int, first: int = 0, suffix: str = ".png", **options: Any) -> Path:
    """A folder with this many different pictures, which are numbered from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, **options).save(folder / f"{number}{suffix}")
    return folder


def classes(root: Path, *names: str, count: int = 6, **options: Any) -> Path:
    """A folder of classes with different pictures."""
    for place, name in enumerate(names):
        fill(root / name, count, first=1000 * place, **options)
    return root
