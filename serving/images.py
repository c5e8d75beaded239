"""Turns the bytes of a request into the uint8 batch that the model takes, or says what is wrong with them.

This code runs in bounded pools of threads, and on the event loop only for tiny requests. No image is decoded
before its header has told its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.errors import RequestError
from serving.model import ALL_BITS, Images

FORMATS = ("PNG", "JPEG", "WEBP")
# A progressive JPEG is decoded once per scan, and one scan of a huge picture fits in 30 bytes, so a file of
# one megabyte could keep a thread busy for hours. Encoders write about 10 scans.
MAX_SCANS = 40
# Pillow's own limit warns at one size and raises at another. Limits.pixels takes its place and is checked
# before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
Image.init()  # makes Pillow load its formats now instead of during the first request


@dataclass(frozen=True)
class Limits:
    """The most that one request may hold."""

    images: int
    pixels: int


def read_images(
    content_type: str,
    body: bytes,
    shape: tuple[int, int, int],
    limits: Limits,
    most: int,
    scale: tuple[float, float] = ALL_BITS,
) -> Images | None:
    """Returns the images of a request, fitted to ``shape``, or None if they have over ``most`` pixels.

    ``scale`` says which values become 0 and 255 in pictures of more than 8 bits per channel.

    Raises RequestError, with one sentence for the client, if anything is wrong with the request.
    """
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        pictures = [
            _open(data, f"Image {number}")
            for number, data in enumerate(_parts(options.get(b"boundary", b""), body, limits.images), 1)
        ]
    elif kind == b"application/json":
        pictures = [
            _from_pixels(value, f"Image {n}") for n, value in enumerate(_json_images(body, limits), 1)
        ]
    else:
        raise RequestError(
            415, "Send multipart/form-data with PNG, JPEG or WebP files, or application/json with pixels."
        )
    if not pictures:
        raise RequestError(422, "The request holds no image.")
    pixels = sum(picture.width * picture.height for picture in pictures)
    if pixels > limits.pixels:
        raise RequestError(413, f"Too many pixels: a request may hold {limits.pixels:,} in total.")
    if pixels > most:
        return None
    return np.stack(
        [_fit(picture, shape, scale, f"Image {number}") for number, picture in enumerate(pictures, 1)]
    )


def _parts(boundary: bytes, body: bytes, most: int) -> list[bytes]:
    """Returns the contents of the parts of a multipart body; their names and headers do not matter."""
    parts: list[bytearray] = []
    ended = False

    def begin() -> None:
        if len(parts) == most:
            raise RequestError(413, f"Too many images: a request may hold {most}.")
        parts.append(bytearray())

    def data(chunk: bytes, start: int, end: int) -> None:
        parts[-1] += chunk[start:end]

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(boundary, {"on_part_begin": begin, "on_part_data": data, "on_end": end})
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise RequestError(400, "The multipart body is malformed.") from None
    if not ended:
        raise RequestError(400, "The multipart body ends early.")
    return [bytes(part) for part in parts]


def _json_images(body: bytes, limits: Limits) -> list[Any]:
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


def _from_pixels(value: Any, which: str) -> Image.Image:
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
    return Image.fromarray(pixels[..., 0] if size[2:] == [1] else pixels)


def _open(data: bytes, which: str) -> Image.Image:
    """Reads the header of a picture and decodes nothing."""
    try:
        picture = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise RequestError(422, f"{which} is not a PNG, JPEG or WebP image.") from None
    except Exception:  # Pillow passes on any exception that a format's reader raises
        raise RequestError(422, f"{which} is damaged.") from None
    if picture.format == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise RequestError(422, f"{which} is a JPEG with more than {MAX_SCANS} scans; save it with fewer.")
    return picture


def _fit(picture: Image.Image, shape: tuple[int, int, int], scale: tuple[float, float], which: str) -> Images:
    """Decodes the picture, turns it upright, and fits its size and colours to (height, width, channels)."""
    height, width, channels = shape
    try:
        if picture.format:  # None for pixels from JSON
            # A JPEG far larger than the model's input is decoded at a fraction of its size, which is faster.
            # The fraction is at least four times the model's size, so that the pixels hardly change.
            picture.draft(None, (4 * width, 4 * height))
            picture = ImageOps.exif_transpose(picture)
        picture = _recolour(picture, "L" if channels == 1 else "RGB", scale)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(shape)  # decodes the picture, if nothing has yet
    except Exception:  # see _open
        raise RequestError(422, f"{which} is truncated or damaged.") from None


def _recolour(picture: Image.Image, mode: str, scale: tuple[float, float]) -> Image.Image:
    """Converts the picture to an 8-bit mode, by the rules that training data are read with."""
    if picture.mode.startswith(("I", "F")):  # over 8 bits per pixel, where Pillow would clip
        low, high = scale
        values = np.asarray(picture)
        scaled = (values.astype(np.float64) - low) * 255 / (high - low)
        whole = (
            np.rint(scaled) if values.dtype.kind == "f" else np.floor(scaled)
        )  # integers keep their upper bits
        picture = Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")  # transparent pixels become white
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture if picture.mode == mode else picture.convert(mode)
