"""Reads what the stage prepare has written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import UserError
from stages.images.params import METRIC
from stages.plumbing.files import DATA
from stages.records import DataCard


class ImageCard(DataCard):
    """data.json: what later stages need to know about the images."""

    classes: list[str]
    image_shape: tuple[int, int, int]  # height, width, channels
    mean: list[float]  # per channel, of the training images in [0, 1]
    std: list[float]
    mirror: bool  # whether images may be mirrored left to right

    def schema_of_a_case(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "classes": self.classes}

    def in_words(self) -> str:
        return f"{len(self.classes)} classes, images {list(self.image_shape)}"


def read_card() -> ImageCard:
    """Reads data.json. Raises UserError when the file is missing or damaged."""
    return ImageCard.read(DATA / "data.json", METRIC)


def read_split(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, height, width, channels) and labels (N,) of a split, memory-mapped.

    Writing to the arrays does not change the files. Raises UserError when a file is missing or damaged.
    """
    return _array(f"{name}_images"), _array(f"{name}_labels")


def _array(name: str) -> NDArray[Any]:
    path = DATA / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro prepare` makes it") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {DATA} and run `dvc repro`") from None
