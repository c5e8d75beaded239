"""Pictures as a request brings them become the batch that the model takes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from serving.errors import RequestError
from serving.images import Limits, read_images
from tests.serving.conftest import (
    RED,
    encode,
    saved,
)

LIMITS = Limits(images=4, pixels=1_000_000)


def read_form(body: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    images = read_images("multipart/form-data; boundary=x", body, shape, LIMITS, LIMITS.pixels)
    assert images is not None
    return images


def read(content: bytes, shape: tuple[int, int, int] = (4, 4, 3)) -> np.ndarray:
    """One image file, through the reader of a multipart body."""
    body = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return read_form(body, shape)[0]


def test_a_picture_of_the_models_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels))), pixels)


def test_height_and_width_are_not_exchanged() -> None:
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, 3:] = 200
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels)), (2, 6, 3)), pixels)


def test_16_bits_of_grey_are_scaled_not_clipped() -> None:
    pixels = (np.arange(16, dtype=np.uint16) * 4096).reshape(4, 4)
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels)), (4, 4, 1))[..., 0], pixels // 257)


def test_what_is_transparent_becomes_white() -> None:
    picture = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert (read(saved(picture)) == 255).all()
    assert (read(saved(picture, "WEBP", lossless=True)) == 255).all()
    assert (read(saved(Image.new("RGBA", (4, 4), (9, 9, 9, 255)))) == 9).all()


def test_a_picture_taken_sideways_is_turned_upright() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 200  # the stored top row
    exif = Image.Exif()
    exif[0x0112] = 6  # is the right column of the picture
    turned = read(saved(Image.fromarray(pixels), exif=exif))
    assert (turned[:, 3] == 200).all()
    assert (turned[:, :3] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_a_png_becomes_the_models(mode: str, channels: int) -> None:
    assert read(saved(Image.new(mode, (5, 7))), (4, 3, channels)).shape == (4, 3, channels)


def test_a_large_jpeg_is_read_as_the_plain_way_reads_it() -> None:
    x, y = np.meshgrid(np.linspace(0, 6, 900), np.linspace(0, 6, 900))
    waves = np.stack([np.sin(x), np.sin(y), np.cos(x + y)], axis=-1)
    content = saved(Image.fromarray((127 * waves + 128).astype(np.uint8)), "JPEG", quality=95)
    plain = np.asarray(Image.open(BytesIO(content)).resize((32, 32), Image.Resampling.BILINEAR), np.int16)
    assert np.abs(read(content, (32, 32, 3)) - plain).max() <= 3


def test_pixels_are_counted_over_all_images() -> None:
    content = encode(0, (600, 600), "L")
    part = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + content + b"\r\n"
    assert len(read_form(part * 2 + b"--x--\r\n", (4, 4, 1))) == 2
    kind = "multipart/form-data; boundary=x"
    assert read_images(kind, part * 2 + b"--x--\r\n", (4, 4, 1), LIMITS, most=719_999) is None
    with pytest.raises(RequestError, match="Too many pixels"):
        read_form(part * 3 + b"--x--\r\n", (4, 4, 1))


def test_red_is_red() -> None:
    assert (read(encode(RED)) == np.array(RED)).all()
