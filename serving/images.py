"""Turns the bytes of a request into the uint8 batch that the model takes, or says what is wrong with them.

What this code may cost is bounded by its callers (serving/decoding.py): it gives up on a request that needs more
than ``most``. No picture is decoded before its header has told its size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from pydantic_core import from_json

from serving.arrays import ALL_BITS, Images
from serving.errors import RequestError
from serving.forms import FORM, JSON, media_type, read_parts
from serving.headers import check_size, read_header

FORMATS = ("PNG", "JPEG", "WEBP")
# Of these, only Pillow tells the size. Nothing bounds how long it takes for that, so they are read only where that
# can be stopped.
OTHER_FORMATS = ("GIF", "TIFF", "BMP", "PPM")
KNOWN = "PNG, JPEG, WebP, GIF, TIFF, BMP or PPM image"
GREY_MODES = {"1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
STRIP_PIXELS = 2**18
# Pillow's own limit warns at one size and raises at another. Limits.pixels takes its place and is checked
# before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about each damaged entry beside the pixels, thousands of times for one file. They change no pixel.
warnings.filterwarnings("ignore", module="PIL")
Image.init()  # makes Pillow load its formats now instead of during the first request


@dataclass(frozen=True)
class Limits:
    """The most that one request may hold."""

    images: int
    pixels: int

    def check(self, pixels: int) -> None:
        """Raises RequestError if there are too many pixels."""
        if pixels > self.pixels:
            raise RequestError(413, f"Too many pixels: a request may hold {self.pixels:,} in total.")


@dataclass(frozen=True)
class Opened:
    """A picture that is not decoded yet, or pixels from JSON, and the number of pixels that it may have."""

    picture: Image.Image | Images
    pixels: int


def read_images(
    content_type: str,
    body: bytes | bytearray,
    shape: tuple[int, int, int],
    limits: Limits,
    most: int | None,
    scale: tuple[float, float] = ALL_BITS,
) -> Images | None:
    """Returns the images of a request, fitted to ``shape``, or None if that may take more work than ``most``.

    ``scale`` says which values become 0 and 255 in pictures of more than 8 bits per channel. With ``most`` None, the
    caller can stop this function.

    Raises RequestError, with one sentence for the client, if anything is wrong with the request.
    """
    pictures = open_images(content_type, body, limits, most, stoppable=most is None)
    return None if pictures is None else fit_images(pictures, shape, scale)


def open_images(
    content_type: str, body: bytes | bytearray, limits: Limits, most: int | None, *, stoppable: bool
) -> list[Image.Image | Images] | None:
    """Returns the pictures of a request, not decoded; None if that may take more work than ``most``.

    ``stoppable`` says that the caller can stop this function, so that it may read formats of unknown cost.
    """
    kind, options = media_type(content_type)
    if kind == FORM:
        parts = read_parts(options.get(b"boundary", b""), body, limits.images, "images")
        opened = _opened(parts, limits, most, stoppable)
    elif kind == JSON:
        opened = (_from_pixels(value, f"Image {n}") for n, value in enumerate(_json_images(body, limits), 1))
    else:
        raise RequestError(415, "Send multipart/form-data with image files, or application/json with pixels.")
    pictures: list[Image.Image | Images] = []
    pixels = 0
    for one in opened:
        if one is None:
            return None
        pictures.append(one.picture)
        pixels += one.pixels
        limits.check(pixels)
    if not pictures:
        raise RequestError(422, "The request holds no image.")
    return None if most is not None and pixels > most else pictures


def fit_images(
    pictures: list[Image.Image | Images], shape: tuple[int, int, int], scale: tuple[float, float]
) -> Images:
    """Decodes the pictures and fits them to (height, width, channels). Empties the list, picture by picture."""
    images = np.empty((len(pictures), *shape), np.uint8)
    for number in range(len(pictures)):
        images[number] = _fit(pictures.pop(0), shape, scale, f"Image {number + 1}")
    return images


def _json_images(body: bytes | bytearray, limits: Limits) -> list[Any]:
    """Returns the images of a JSON body: an array (one image or a batch), or an object with a list."""
    try:
        value = from_json(body)
    except ValueError as error:
        raise RequestError(400, f"The body is not valid JSON: {error}.") from None
    if isinstance(value, dict):
        images = value.get("images")
        if set(value) != {"images"} or not isinstance(images, list):
            raise RequestError(422, 'A JSON object must be {"images": [image, ...]} and nothing else.')
    elif isinstance(value, list):
        images = value if _depth(value) == 4 else [value]
    else:
        raise RequestError(422, "JSON must be an array of pixels, or an object with a list of images.")
    if len(images) > limits.images:
        raise RequestError(413, f"Too many images: a request may hold {limits.images}.")
    return images


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, value[0] if value else None
    return depth


def _from_pixels(value: Any, which: str) -> Opened:
    """Makes a picture from nested lists (height, width) or (height, width, 1 or 3) of integers 0..255."""
    wrong = RequestError(
        422,
        f"{which} must be rows of pixels, each pixel an integer from 0 to 255 or a list of 1 or 3 of them.",
    )
    size: list[int] = []
    level = [value]
    # Checks one level of nesting at a time in C loops, so a million pixels take milliseconds.
    while (kinds := set(map(type, level))) == {list}:
        lengths = set(map(len, level))
        if len(lengths) != 1 or lengths == {0} or len(size) == 3:
            raise wrong
        size += lengths
        level = list(chain.from_iterable(level))
    if kinds != {int} or len(size) < 2:
        raise wrong
    if len(size) == 3 and size[2] not in (1, 3):
        raise RequestError(422, f"{which} has {size[2]} channels; send 1 (grey) or 3 (red, green, blue).")
    try:
        pixels = np.frombuffer(bytes(level), np.uint8).reshape(size)
    except ValueError:  # an integer outside 0..255
        raise wrong from None
    return Opened(pixels[..., 0] if size[2:] == [1] else pixels, size[0] * size[1])


def _opened(files: list[bytes], limits: Limits, most: int | None, stoppable: bool) -> Iterator[Opened | None]:
    """Reads the headers of pictures and decodes nothing. Ends with None if that may take too much work."""
    pixels = work = 0
    for number, data in enumerate(files, 1):
        which = f"Image {number}"
        header = read_header(data, which)
        if header:
            pixels, work = pixels + header.pixels, work + header.work
            limits.check(
                pixels
            )  # because Pillow takes memory for a whole WebP picture as soon as it opens it
        if (most is not None and work > most) or not (header or stoppable):
            yield None
            return
        try:
            picture = Image.open(BytesIO(data), formats=FORMATS if header else OTHER_FORMATS)
        except UnidentifiedImageError:
            raise RequestError(422, f"{which} is {'damaged' if header else f'not a {KNOWN}'}.") from None
        except MemoryError:
            raise RequestError(413, f"{which} needs too much memory to decode.") from None
        except Exception:  # Pillow passes on any exception that a format's reader raises
            raise RequestError(422, f"{which} is damaged.") from None
        size = picture.width * picture.height
        check_size(len(data), size, which)
        # The larger, because a file may name two sizes.
        yield Opened(picture, max(size, header.pixels if header else 0))


def _fit(
    picture: Image.Image | Images, shape: tuple[int, int, int], scale: tuple[float, float], which: str
) -> Images:
    """Decodes the picture, turns it upright, and fits its size and colours to (height, width, channels)."""
    height, width, channels = shape
    try:
        if isinstance(picture, np.ndarray):
            if picture.shape == (shape[:2] if channels == 1 else shape):
                return picture.reshape(
                    shape
                )  # nothing is to be done, which saves a tenth of a request's time
            picture = Image.fromarray(picture)
        if picture.format:  # None for pixels from JSON
            # A JPEG far larger than the model's input is decoded at a fraction of its size, which is faster.
            # The fraction is at least four times the model's size, as for training.
            picture.draft(None, (4 * width, 4 * height))
            ImageOps.exif_transpose(picture, in_place=True)
        mode = "L" if channels == 1 else "RGB"
        # Grey pictures become coloured last, which gives the same pixels and needs less memory.
        grey = picture.mode in GREY_MODES and not _is_transparent(picture)
        picture = _recolour(picture, "L" if grey else mode, scale)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        picture = picture if picture.mode == mode else picture.convert(mode)
        return np.asarray(picture).reshape(shape)  # decodes the picture, if nothing has yet
    except MemoryError:
        raise RequestError(413, f"{which} needs too much memory to decode.") from None
    except Exception:  # see _opened
        raise RequestError(422, f"{which} is truncated or damaged.") from None


def _is_transparent(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info


def _recolour(picture: Image.Image, mode: str, scale: tuple[float, float]) -> Image.Image:
    """Converts the picture to an 8-bit mode, strip by strip, because the steps between need several times its memory."""
    if picture.mode == mode and not _is_transparent(picture):
        return picture
    rows = max(1, STRIP_PIXELS // picture.width)
    if picture.height <= rows:
        return _in_8_bits(picture, mode, scale)
    whole = Image.new(mode, picture.size)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        whole.paste(_in_8_bits(strip, mode, scale), (0, top))
    return whole


def _in_8_bits(picture: Image.Image, mode: str, scale: tuple[float, float]) -> Image.Image:
    """Converts the picture by the rules that training data are read with (docs/data.md)."""
    if picture.mode.startswith(("I", "F")):  # over 8 bits per pixel, where Pillow would clip
        low, high = scale
        values = np.asarray(picture)
        scaled = (values.astype(np.float64) - low) * 255 / (high - low)
        whole = (
            np.rint(scaled) if values.dtype.kind == "f" else np.floor(scaled)
        )  # integers keep their upper bits
        picture = Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))
    if picture.mode == "LAB":  # Pillow converts it through colour profiles only
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")  # pyright: ignore[reportAssignmentType]
    if _is_transparent(picture):
        layer = picture.convert("RGBA")  # transparent pixels become white
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture if picture.mode == mode else picture.convert(mode)
