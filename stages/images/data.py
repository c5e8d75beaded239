"""Reads what the stage prepare has written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stages.errors import UserError
from stages.images.params import METRIC
from stages.plumbing.files import DATA
from stages.records import DataCard

_SHOWN = 8  # reasons in a line


class Duplicates(BaseModel):
    """How many pictures of a data set occur more than once. All zero when every picture is unique."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    copies: int = 0  # pictures beyond the first of their kind, in all splits
    test_in_train: int = 0  # test pictures that are also training pictures
    test_in_val: int = 0
    val_in_train: int = 0
    two_labels: int = 0  # different pictures that occur under two or more labels
    copied_classes: list[tuple[str, str]] = []  # classes whose pictures are the same
    dropped: int = 0  # pictures that were left out because of data.duplicates: drop

    def in_words(self) -> str:
        """One line with the counts that are not zero; empty when every picture is unique."""
        parts = [
            f"{count} {one if count == 1 else several}"
            for count, one, several in (
                (
                    self.test_in_train,
                    "test picture is also a training picture",
                    "test pictures are also training pictures",
                ),
                (
                    self.test_in_val,
                    "test picture is also a validation picture",
                    "test pictures are also validation pictures",
                ),
                (
                    self.val_in_train,
                    "validation picture is also a training picture",
                    "validation pictures are also training pictures",
                ),
                (self.two_labels, "picture has two labels", "pictures have two labels"),
                (self.copies, "is a copy of another", "are copies of another"),
                (self.dropped, "was dropped", "were dropped"),
            )
            if count
        ]
        parts += [f"the classes {one!r} and {other!r} are the same" for one, other in self.copied_classes[:3]]
        return ", ".join(parts)


class ImageCard(DataCard):
    """data.json: what later stages need to know about the images."""

    classes: list[str]
    image_shape: tuple[int, int, int]  # height, width, channels
    mean: list[float]  # per channel, of the training images in [0, 1]
    std: list[float]
    mirror: bool  # whether images may be mirrored left to right
    duplicates: Duplicates = Duplicates()
    left_out: Mapping[str, int] = Field(
        default_factory=dict
    )  # files under data.root that are not used, by reason
    first_frames: int = 0  # pictures with several frames, of which the first is used
    # For pixels of more than 8 bits: what becomes 0 and what becomes 255, and where these come from.
    pixel_scale: tuple[float, float] | None = None
    pixel_scale_from: str | None = None

    def schema_of_a_case(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "classes": self.classes}

    def in_words(self) -> str:
        return f"{len(self.classes)} classes, images {list(self.image_shape)}"

    def notices(self) -> list[str]:
        lines: list[str] = []
        if self.left_out:
            used, unused = sum(self.counts.values()) + self.duplicates.dropped, sum(self.left_out.values())
            reasons = ", ".join(f"{count} {reason}" for reason, count in list(self.left_out.items())[:_SHOWN])
            more = f", and {len(self.left_out) - _SHOWN} other reasons" if len(self.left_out) > _SHOWN else ""
            lines.append(f"{used} of {used + unused} files used; left out: {reasons}{more}")
        if self.first_frames:
            lines.append(f"{self.first_frames} pictures have several frames; the first is used")
        if self.pixel_scale:
            low, high = self.pixel_scale
            lines.append(f"pixels from {low:g} to {high:g} become 0 to 255 ({self.pixel_scale_from})")
        if words := self.duplicates.in_words():
            lines.append(f"{words} (data.duplicates)")
        return lines


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
