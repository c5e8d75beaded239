"""Decodes picture files to uint8 arrays, by the rules that the server applies to the pictures it is sent.

A picture is turned upright (EXIF), transparent pixels become white, and the first frame stands for an animation.
Pixels of more than 8 bits are mapped to 8 bits by one scale for the whole data set (stages/images/prepare/depth.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from stages.errors import passing

Images = NDArray[np.uint8]  # (N, height, width, channels)

# Formats that Pillow names but cannot decode by itself: they need another program, or are not pictures.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}

Image.init()  # loads all formats now, because threads that do it at once get in each other's way
Image.MAX_IMAGE_PIXELS = (
    None  # `data.max_megapixels` takes its place, and is checked before anything is decoded
)

_FORMATS = {
    suffix: name
    for suffix, name in Image.registered_extensions().items()
    if name in Image.OPEN and name not in _NOT_DECODED
}
SUFFIXES = frozenset(_FORMATS)
GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}  # more than 8 bits per channel
_ORIENTATION = 0x0112  # EXIF's tag
_ENLARGED = 4  # a JPEG is decoded at a fraction of its size that is at least this many times the size wanted


@dataclass(frozen=True, order=True)
class Member:
    """A file within a tar file."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    def read(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Place = Path | Member  # where a picture is


class Unreadable(Exception):
    """A picture that cannot be decoded; the message says why."""


@dataclass(frozen=True)
class Header:
    """What a file says about its picture before anything is decoded."""

    width: int  # of the picture turned upright
    height: int
    mode: str  # Pillow's
    grey: bool
    frames: bool  # whether there are several, of which the first is used

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class Scale:
    """Maps pixels of more than 8 bits to 0..255: ``low`` becomes 0, ``high`` 255, and what is outside is clipped."""

    low: float
    high: float

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        scaled = (values.astype(np.float64) - self.low) * 255 / (self.high - self.low)
        whole = (
            np.rint(scaled) if values.dtype.kind == "f" else np.floor(scaled)
        )  # integers keep their upper bits
        return np.clip(whole, 0, 255).astype(np.uint8)


def read_header(place: Place) -> Header:
    """Reads a file's header. Raises Unreadable."""
    with _readable(), _opened(place) as image:
        width, height = image.size
        # Pillow decodes all of a PNG to look for EXIF data after the pixels; FileRows notices if those turn it.
        if (image.format != "PNG" or "exif" in image.info) and image.getexif().get(_ORIENTATION, 1) > 4:
            width, height = height, width  # orientations 5 to 8 lie on their side
        return Header(width, height, image.mode, _is_grey(image), bool(getattr(image, "is_animated", False)))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA") and (palette := image.getpalette("RGB")):
        red, green, blue = (palette[channel::3] for channel in range(3))
        return red == green == blue
    return image.mode in GREY_MODES


def decode(place: Place, *, grey: bool, side: int | None, scale: Scale | None) -> Image.Image:
    """The picture with 8 bits per channel, upright, not yet resized to ``side``.

    A JPEG that is far larger than ``side`` is decoded at a fraction of its size, as the server does. Pixels of more than
    8 bits need a ``scale``. Raises Unreadable.
    """
    with _readable(), _opened(place) as image:
        if side is not None:
            image.draft(None, (_ENLARGED * side, _ENLARGED * side))
        ImageOps.exif_transpose(image, in_place=True)
        return _in_8_bits(image, "L" if grey else "RGB", scale)


def as_array(image: Image.Image, side: int | None, channels: int) -> Images:
    """An 8-bit image as (height, width, channels), resized to ``side`` bilinearly with antialiasing unless None."""
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def check(place: Place) -> None:
    """Decodes the picture for nothing but its errors. Raises Unreadable."""
    with _readable(), _opened(place) as image:
        image.load()


def values_of(place: Place) -> NDArray[Any]:
    """The pixels of a picture of more than 8 bits, (height, width), as the file has them. Raises Unreadable."""
    with _readable(), _opened(place) as image:
        return np.asarray(image)


def _in_8_bits(image: Image.Image, mode: str, scale: Scale | None) -> Image.Image:
    if image.mode in DEEP_MODES:
        assert scale is not None, "pixels of more than 8 bits need a scale"
        image = Image.fromarray(scale.apply(np.asarray(image)))
    if image.mode == "LAB":  # Pillow converts it through colour profiles only
        image = ImageCms.profileToProfile(  # pyright: ignore[reportAssignmentType]
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")  # transparent pixels become white
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == mode else image.convert(mode)


def _opened(place: Place) -> Image.Image:
    """The picture, not decoded. The format that the suffix names is tried first, because trying them all takes longer."""
    file = BytesIO(place.read()) if isinstance(place, Member) else place
    named = _FORMATS.get(Path(place.name).suffix.lower())
    try:
        return Image.open(file, formats=[named] if named else None)
    except UnidentifiedImageError:
        return Image.open(file)


class _readable:
    """Turns everything that a decoder raises into Unreadable, in one line; an error of the disk is a MachineError."""

    def __enter__(self) -> Any:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, Unreadable) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError) and (machines := passing(error)):  # the picture may be whole
            raise machines from None
        if isinstance(error, UnidentifiedImageError):
            raise Unreadable("not a picture") from None
        raise Unreadable(" ".join(str(error).split())[:120] or type(error).__name__) from None
