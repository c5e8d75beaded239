"""What a network knows besides its weights: known.json, which the stage export writes and a version keeps.

With it, the server says when an answer is not sure, warns of pictures that are unlike those that the network has learned
from, and has pictures or a series to try. Without it, the server answers the same and says none of this.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

log = logging.getLogger("serving")

KNOWN = "known.json"  # beside the network: in the folder of a version, or beside a file
MOST = 1_000_000  # bytes of the file; export writes a fifth of it at most
HERE = 100_000  # numbers whose mean and deviation the event loop computes itself: 0.3 ms; 32 x 224 x 224 x 3 take 25 ms
_LEVELS = 255.0


def _base64(text: str) -> str:
    base64.b64decode(text, validate=True)  # raises ValueError
    return text


class Picture(BaseModel):
    """A picture to try: a test image, its right answer, and its file in base64."""

    model_config = ConfigDict(frozen=True)

    class_name: str
    media_type: Annotated[str, Field(pattern="^image/(png|webp)$")]
    content: Annotated[str, AfterValidator(_base64)]


class Example(BaseModel):
    """A series to try: the rows that the network looks back on, in the user's units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: tuple[str, ...] | None = None
    columns: dict[str, tuple[FiniteFloat, ...]]


class Known(BaseModel):
    """What known.json holds. Ranges are in levels from 0 to 255."""

    model_config = ConfigDict(frozen=True)

    model_sha256: str = ""  # of the file that it is about
    sure_from: float | None = (
        None  # probability from which an answer counts as sure; None: never, or not known
    )
    brightness: tuple[float, float] | None = (
        None  # mean of the training images, from the lowest to the highest
    )
    contrast: tuple[float, float] | None = None  # standard deviation
    pictures: tuple[Picture, ...] = ()
    example: Example | None = None
    truth: dict[str, tuple[FiniteFloat, ...]] = {}  # target -> what came after the example; empty: not told

    def remarks(self, images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
        """What to say about the answers (N, classes) to images (N, height, width, channels).

        Whether each is sure (None: not known), and a warning (None: nothing is unusual about the image).
        """
        if self.brightness is None or self.contrast is None:
            return [{"sure": None, "warning": None}] * len(images)
        means, spreads = _mean_and_spread(images.reshape(len(images), -1))
        found = []
        for mean, spread, best in zip(
            means.tolist(), spreads.tolist(), probabilities.max(axis=1).tolist(), strict=True
        ):
            warning = _warning(mean, spread, self.brightness, self.contrast)
            sure = warning is None and self.sure_from is not None and best >= self.sure_from
            found.append({"sure": sure, "warning": warning})
        return found


def _mean_and_spread(
    levels: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each row. The same numbers as numpy's mean and std, which take three times as long for
    a small picture."""
    count = levels.shape[1]
    means = np.add.reduce(levels, axis=1, dtype=np.float64) / count
    away = levels - means[:, None]
    np.multiply(away, away, out=away)
    return means, np.sqrt(np.add.reduce(away, axis=1) / count)


async def remarks_on(
    known: Known, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """``known.remarks``, in a thread where it would keep the event loop from answering others."""
    if images.size <= HERE:
        return known.remarks(images, probabilities)
    return await asyncio.to_thread(known.remarks, images, probabilities)


NOTHING = Known()


def read_known(path: Path, model: bytes | None = None) -> Known:
    """Reads known.json; ``NOTHING`` where it is missing, damaged, or about another file than ``model``, if that is given."""
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"over {MOST:,} bytes")
        known = Known.model_validate_json(path.read_bytes())
        if model is not None and known.model_sha256 != hashlib.sha256(model).hexdigest():
            raise ValueError("it is about another network")
    except FileNotFoundError:
        return NOTHING
    except (OSError, ValidationError, ValueError) as error:
        log.warning("%s is not used: %s", path.name, " ".join(str(error).split())[:200])
        return NOTHING
    return known


def views(images: NDArray[np.uint8]) -> list[str]:
    """The images as the network sees them: PNG files in base64."""
    return [_png(pixels[..., 0] if pixels.shape[2] == 1 else pixels) for pixels in images]


def _png(pixels: NDArray[np.uint8]) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _warning(
    mean: float, spread: float, brightness: Sequence[float], contrast: Sequence[float]
) -> str | None:
    """One sentence about a picture that is unlike the training images; None for one that is like them."""
    unlike = [
        word
        for word, value, low in (
            ("darker", mean, brightness[0]),
            ("paler", spread, contrast[0]),
            ("brighter", -mean, -brightness[1]),
            ("richer in contrast", -spread, -contrast[1]),
        )
        if value < low
    ]
    if not unlike:
        return None
    sentence = f"This picture is {' and '.join(unlike)} than those that the network has learned from."
    swapped = brightness[0] <= _LEVELS - mean <= brightness[1] and contrast[0] <= spread <= contrast[1]
    return f"{sentence} Its light and dark may be the wrong way round." if swapped else sentence
