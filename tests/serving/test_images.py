"""Images in a request become the batch that the model takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.errors import RequestError
from serving.images import Limits, read_images
from stages.images.prepare.pictures import Scale, as_array, decode
from tests.serving.conftest import RED, encode, saved

LIMITS = Limits(images=4, pixels=1_000_000)


def read_form(body: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    images = read_images("multipart/form-data; boundary=x", body, shape, LIMITS, None)
    assert images is not None
    return images


def read(content: bytes, shape: tuple[int, int, int] = (4, 4, 3)) -> np.ndarray:
    """The image in a multipart body that holds one file."""
    body = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return read_form(body, shape)[0]


def test_a_picture_of_the_models_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels))), pixels)


def test_height_and_width_are_not_exchanged() -> None:
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, 3:] = 200
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels)), (2, 6, 3)), pixels)


def test_16_bit_grey_is_scaled_instead_of_clipped() -> None:
    pixels = (np.arange(16, dtype=np.uint16) * 4096).reshape(4, 4)
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels)), (4, 4, 1))[..., 0], pixels // 257)


def test_transparent_pixels_become_white() -> None:
    picture = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert (read(saved(picture)) == 255).all()
    assert (read(saved(picture, "WEBP", lossless=True)) == 255).all()
    assert (read(saved(Image.new("RGBA", (4, 4), (9, 9, 9, 255)))) == 9).all()


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top row of the file is the right column of the upright picture
    turned = read(saved(Image.fromarray(pixels), exif=exif))
    assert (turned[:, 3] == 200).all()
    assert (turned[:, :3] == 0).all()


def indexed(size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("P", size, 1)
    picture.putpalette([0, 0, 0, *colour])
    return picture


SIZE, WHITE = (5, 7), 255
PNGS = {
    "1": (Image.new("1", SIZE, 1), WHITE),
    "L": (Image.new("L", SIZE, 200), 200),
    "LA": (Image.new("LA", SIZE, (200, 255)), 200),
    "P": (indexed(SIZE, (200, 200, 200)), 200),
    "RGB": (Image.new("RGB", SIZE, (200, 200, 200)), 200),
    "RGBA": (Image.new("RGBA", SIZE, (200, 200, 200, 255)), 200),
    "I;16": (Image.new("I;16", SIZE, 200 * 257), 200),
}


@pytest.mark.parametrize(("picture", "value"), PNGS.values(), ids=PNGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_a_png_keeps_its_colour_in_the_models_mode(
    picture: Image.Image, value: int, channels: int
) -> None:
    np.testing.assert_array_equal(
        read(saved(picture), (4, 3, channels)), np.full((4, 3, channels), value, np.uint8)
    )


@pytest.mark.parametrize("kind", ["file", "pixels"])
def test_colours_become_their_luminance_for_a_grey_model(kind: str) -> None:
    if kind == "file":
        images = read(encode(RED), (4, 4, 1))[None]
    else:
        body = json.dumps([[list(RED)]]).encode()
        images = read_images("application/json", body, (4, 4, 1), LIMITS, LIMITS.pixels)
        assert images is not None
    luminance = 0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2]  # ITU-R BT.601
    assert images.shape == (1, 4, 4, 1)
    assert np.abs(images - luminance).max() <= 1


def stripes(size: int) -> Image.Image:
    """Saturated stripes, which show best how a JPEG is decoded."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    return Image.fromarray(
        np.stack([x % 6 < 3, (x + y) % 10 < 5, y % 14 < 7], axis=-1).astype(np.uint8) * 255
    )


def sideways(picture: Image.Image) -> Image.Exif:
    exif = picture.getexif()
    exif[0x0112] = 6
    return exif


TRAINED: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(stripes(300)),
    "jpg": lambda: saved(stripes(300), "JPEG"),
    "webp": lambda: saved(stripes(300), "WEBP"),
    "gif": lambda: saved(stripes(300), "GIF"),
    "bmp": lambda: saved(stripes(300), "BMP"),
    "ppm": lambda: saved(stripes(300), "PPM"),
    "tif": lambda: saved(stripes(300), "TIFF"),
    "lab.tif": lambda: saved(Image.new("LAB", (30, 20), (150, 30, 60)), "TIFF"),
    "float.tif": lambda: saved(Image.fromarray(np.linspace(0, 65535, 900, dtype=np.float32).reshape(30, 30)), "TIFF"),
    "16.png": lambda: saved(Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64))),
    "large.png": lambda: saved(stripes(800).convert("RGBA")),
    "clear.png": lambda: saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (700, 600, 4), np.uint8))),
    "cmyk.jpg": lambda: saved(stripes(64).convert("CMYK"), "JPEG"),
    "sideways.jpg": lambda: saved(stripes(300), "JPEG", exif=sideways(stripes(300))),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("side", "grey"), [(8, False), (32, True), (96, False)])
def test_the_server_sees_the_pixels_that_training_sees(
    name: str, side: int, grey: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(TRAINED[name]())
    scale = Scale(0, 65535)
    trained = as_array(decode(tmp_path / name, grey=grey, side=side, scale=scale), side, 1 if grey else 3)
    served = read((tmp_path / name).read_bytes(), (side, side, 1 if grey else 3))
    np.testing.assert_array_equal(served, trained)


def test_the_limit_on_pixels_applies_to_all_images_together() -> None:
    content = encode(0, (600, 600), "L")
    part = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + content + b"\r\n"
    assert len(read_form(part * 2 + b"--x--\r\n", (4, 4, 1))) == 2
    kind = "multipart/form-data; boundary=x"
    assert read_images(kind, part * 2 + b"--x--\r\n", (4, 4, 1), LIMITS, most=719_999) is None
    with pytest.raises(RequestError, match="Too many pixels"):
        read_form(part * 3 + b"--x--\r\n", (4, 4, 1))


def test_a_red_picture_is_red() -> None:
    assert (read(encode(RED)) == np.array(RED)).all()
