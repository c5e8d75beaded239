"""The prepared data set, as the later stages read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.images.batches import Preprocess, Split
from stages.errors import UserError
from stages.plumbing.files import DATA, read_json

EVALUATION_BATCH = 256  # images at once where there are no gradients


@dataclass(frozen=True)
class Data:
    """Memory-mapped splits and what data.json says of them."""

    train: Split
    val: Split
    test: Split
    about: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return self.about["classes"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)"""
        height, width, channels = self.about["image_shape"]
        return height, width, channels

    def preprocess(self, *, cutout: int, device: torch.device) -> Preprocess:
        """Random crop by an eighth of the side (4 pixels of 32), mirroring where the data allow it, and cutout."""
        return Preprocess(
            mean=tuple(self.about["mean"]),
            std=tuple(self.about["std"]),
            padding=min(self.image_shape[:2]) // 8,
            mirror=self.about["mirror"],
            cutout=cutout,
            device=device,
        )


def read_data() -> Data:
    """The artifacts of the stage prepare. Raises UserError when they are absent or damaged."""
    about = read_json(DATA / "data.json")
    return Data(_split("train"), _split("val"), _split("test"), about)


def _split(name: str) -> Split:
    def array(kind: str) -> torch.Tensor:
        path = DATA / f"{name}_{kind}.npy"
        try:
            # Copy on write: the file cannot be changed through the tensor.
            return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        except FileNotFoundError:
            raise UserError(f"{path} is missing; `dvc repro prepare` makes it") from None
        except (ValueError, EOFError) as error:
            raise UserError(
                f"{path} is damaged ({error}); delete artifacts/data and run `dvc repro`"
            ) from None

    return Split(array("images"), array("labels"))


def device() -> torch.device:
    """CUDA where there is any (CUDA_VISIBLE_DEVICES chooses), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
