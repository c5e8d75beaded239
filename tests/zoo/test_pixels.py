"""Every mode that Pillow can open gives the right pixels, and the server reads the same pixels from the same file."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from serving.arrays import ALL_BITS
from serving.images import Limits, read_images
from stages.errors import UserError
from stages.images.prepare.pictures import Scale, as_array, decode, read_header
from tests.zoo.conftest import Prepare, classes, fill, picture

SIZE = (8, 8)


def array(path: Path, *, grey: bool, side: int | None = None, scale: Scale | None = None) -> np.ndarray:
    """The picture as prepare writes it."""
    return as_array(decode(path, grey=grey, side=side, scale=scale), side, 1 if grey else 3)


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, SIZE, colour)  # pyright: ignore[reportArgumentType]


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(flat("RGB", (200, 30, 90)), *profiles, outputMode="LAB")  # pyright: ignore[reportReturnType]


def palette(grey: bool) -> Image.Image:
    image = flat("P", 3)
    image.putpalette([0, 0, 0] * 3 + ([70, 70, 70] if grey else [10, 20, 30]) + [0, 0, 0] * 252)
    return image


# Pillow's mode of the opened file: how to make one, its suffix, whether it is grey, and its colour; what the colour may be off by.
MODES: dict[str, tuple[Callable[[], Image.Image], str, bool, int | tuple[int, int, int], int]] = {
    "1": (lambda: flat("1", 1), ".png", True, 255, 0),
    "L": (lambda: flat("L", 77), ".png", True, 77, 0),
    "LA": (lambda: flat("LA", (77, 255)), ".png", True, 77, 0),
    "P": (lambda: palette(False), ".png", False, (10, 20, 30), 0),
    "PA": (lambda: palette(False).convert("PA"), ".tif", False, (10, 20, 30), 0),
    "RGB": (lambda: flat("RGB", (1, 2, 3)), ".png", False, (1, 2, 3), 0),
    "RGBA": (lambda: flat("RGBA", (1, 2, 3, 255)), ".png", False, (1, 2, 3), 0),
    "CMYK": (lambda: flat("CMYK", (255, 0, 0, 0)), ".tif", False, (0, 255, 255), 0),
    "YCbCr": (lambda: flat("RGB", (200, 30, 90)).convert("YCbCr"), ".tif", False, (200, 30, 90), 2),
    "LAB": (lab, ".tif", False, (200, 30, 90), 3),
    "I;16": (lambda: Image.fromarray(np.full(SIZE, 40000, np.uint16)), ".png", True, 155, 0),
    "I;16B": (lambda: flat("I;16B", 40000), ".tif", True, 155, 0),
    "I": (lambda: flat("I", 40000), ".tif", True, 155, 0),
    "F": (lambda: flat("F", 40000.0), ".tif", True, 156, 0),
}


def test_the_table_has_every_mode_that_a_file_can_have() -> None:
    # These exist in memory only: no format that Pillow reads opens in them, or only under another byte order.
    only_in_memory = {"HSV", "La", "RGBa", "RGBX", "I;16L", "I;16N"}
    assert set(Image.MODES) - only_in_memory == set(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_the_pixels_of_a_mode(tmp_path: Path, mode: str) -> None:
    make, suffix, grey, colour, off = MODES[mode]
    path = tmp_path / f"picture{suffix}"
    make().save(path)
    header = read_header(path)
    assert header.mode == mode
    assert header.grey is grey
    whole, small = (array(path, grey=grey, side=side, scale=Scale(0, 65535)) for side in (None, 4))
    assert whole.shape == (8, 8, 1 if grey else 3)
    assert small.shape == (4, 4, 1 if grey else 3)
    for image in (whole, small):
        np.testing.assert_allclose(image, np.full(image.shape, colour), atol=off)  # pyright: ignore[reportArgumentType]


def test_a_grey_palette_is_grey(tmp_path: Path) -> None:
    palette(True).save(tmp_path / "grey.png")
    assert read_header(tmp_path / "grey.png").grey
    assert array(tmp_path / "grey.png", grey=True)[0, 0, 0] == 70


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
def test_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "clear.png"
    image = flat(mode, {"LA": (9, 0), "RGBA": (9, 9, 9, 0)}.get(mode, 0 if mode != "RGB" else (0, 0, 0)))
    if mode in ("P", "L", "RGB"):
        image.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    image.save(path)
    assert array(path, grey=False).min() == 255


class TestScale:
    def deep(
        self, root: Path, value: Callable[[int], np.ndarray], suffix: str = ".tif", count: int = 6
    ) -> Path:
        for place, name in enumerate(("a", "b")):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.fromarray(value(count * place + number)).save(root / name / f"{number}{suffix}")
        return root

    def test_one_scale_for_dark_and_bright(self, tmp_path: Path, zoo: Prepare) -> None:
        """A dark picture among bright ones stays dark."""
        made = zoo(
            self.deep(tmp_path, lambda n: np.full(SIZE, 257 * (n + 1) if n else 65535, np.uint16), ".png")
        )
        assert sorted(made.all_images.max((1, 2, 3))) == [*range(2, 13), 255]
        assert made.card.pixel_scale == (0, 65535)
        assert "pixels from 0 to 65535 become 0 to 255 (16 bits" in made.notices

    def test_12_bits_in_16(self, tmp_path: Path, zoo: Prepare) -> None:
        made = zoo(self.deep(tmp_path, lambda n: np.full(SIZE, 4095 * n // 11, np.uint16), ".png"))
        assert made.card.pixel_scale == (0, 4095)
        assert made.all_images.min() == 0
        assert made.all_images.max() == 255

    @pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 1000.0), (1e-3, 3e-3)])
    def test_floats(self, tmp_path: Path, zoo: Prepare, low: float, high: float) -> None:
        made = zoo(self.deep(tmp_path, lambda n: np.full(SIZE, low + (high - low) * n / 11, np.float32)))
        assert made.card.pixel_scale == pytest.approx((low, high), rel=1e-6)
        levels = sorted(made.all_images[:, 0, 0, 0].tolist())
        assert levels == pytest.approx([255 * n / 11 for n in range(12)], abs=0.51)

    def test_computed_tomography(self, tmp_path: Path, zoo: Prepare) -> None:
        made = zoo(self.deep(tmp_path, lambda n: np.full(SIZE, -1024 + 400 * n, np.int32)))
        assert made.card.pixel_scale == (-1024, 3376)
        assert (made.all_images.min(), made.all_images.max()) == (0, 255)

    def test_the_test_split_has_no_say(self, tmp_path: Path, zoo: Prepare) -> None:
        self.deep(tmp_path / "train", lambda n: np.full(SIZE, n / 11, np.float32))
        self.deep(tmp_path / "test", lambda n: np.full(SIZE, 7.0 + n, np.float32), count=2)
        made = zoo(tmp_path)
        assert made.card.pixel_scale == (0, 1)
        assert (made.images["test"] == 255).all()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_no_number_is_refused(self, tmp_path: Path, zoo: Prepare, bad: float) -> None:
        self.deep(tmp_path, lambda n: np.full(SIZE, n / 11, np.float32))
        pixels = np.zeros(SIZE, np.float32)
        pixels[3, 3] = bad
        Image.fromarray(pixels).save(tmp_path / "b" / "bad.tif")
        with pytest.raises(
            UserError, match=r"1 pictures have pixels that are not numbers or infinite .*bad.tif"
        ):
            zoo(tmp_path)

    def test_mixtures_are_refused(self, tmp_path: Path, zoo: Prepare) -> None:
        self.deep(tmp_path, lambda n: np.full(SIZE, n / 11, np.float32))
        fill(tmp_path / "a" / "more", 2, mode="L")
        with pytest.raises(UserError, match=r"2 pictures have 8 bits per channel .* which no scale can join"):
            zoo(tmp_path)

    def test_8_and_16_bits_have_depths_that_go_together(self, tmp_path: Path, zoo: Prepare) -> None:
        self.deep(tmp_path, lambda n: np.full(SIZE, 257 * (244 + n), np.uint16), ".png")
        fill(tmp_path / "a" / "more", 2, mode="L", high=2)
        made = zoo(tmp_path)
        assert made.all_images.max() == 255
        assert made.all_images.min() == 0

    def test_a_constant_is_refused(self, tmp_path: Path, zoo: Prepare) -> None:
        with pytest.raises(UserError, match="all pixels of all training pictures are 0.5"):
            zoo(self.deep(tmp_path, lambda n: np.full(SIZE, 0.5, np.float32)))

    def test_8_bits_have_no_scale(self, tmp_path: Path, zoo: Prepare) -> None:
        assert zoo(classes(tmp_path, "a", "b")).card.pixel_scale is None


def test_the_first_of_several_frames_is_used(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b", mode="L")
    frames = [flat("L", shade) for shade in (10, 200)]
    frames[0].save(tmp_path / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b" / "pages.tif", save_all=True, append_images=frames[1:])
    made = zoo(tmp_path)
    assert made.card.first_frames == 2
    assert "2 pictures have several frames; the first is used" in made.notices


def test_a_picture_on_its_side_is_turned(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b", size=(9, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        picture(500, (8, 9)).save(tmp_path / name / "turned.jpg", exif=exif)
    assert zoo(tmp_path).card.image_shape == (8, 9, 3)


@pytest.mark.parametrize(
    ("suffix", "mode", "size"),
    [
        (".png", "RGB", (30, 20)), (".png", "RGBA", (20, 30)), (".png", "L", (40, 40)), (".png", "LA", (9, 9)),
        (".jpg", "RGB", (300, 200)), (".jpg", "L", (333, 120)), (".jpg", "CMYK", (64, 64)), (".webp", "RGB", (50, 60)),
        (".webp", "RGBA", (50, 60)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grey", [True, False])
def test_the_server_sees_the_same_pixels(
    tmp_path: Path, suffix: str, mode: str, size: tuple[int, int], grey: bool
) -> None:
    path = tmp_path / f"picture{suffix}"
    picture(3, size, mode).save(path)
    ours = array(path, grey=grey, side=8)
    np.testing.assert_array_equal(served(path.read_bytes(), (8, 8, 1 if grey else 3)), ours)


@pytest.mark.parametrize("scale", [Scale(0, 65535), Scale(0, 4095), Scale(100, 900)])
def test_the_server_scales_deep_pixels_alike(tmp_path: Path, scale: Scale) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (12, 12), np.uint16) >> 3
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    ours = array(tmp_path / "deep.png", grey=True, side=8, scale=scale)
    theirs = served((tmp_path / "deep.png").read_bytes(), (8, 8, 1), (scale.low, scale.high))
    np.testing.assert_array_equal(theirs, ours)


def served(content: bytes, shape: tuple[int, int, int], scale: tuple[float, float] = ALL_BITS) -> np.ndarray:
    """The pixels that the server reads from an upload."""
    body = (
        b"--x\r\nContent-Disposition: form-data; name=f\r\n\r\n" + BytesIO(content).read() + b"\r\n--x--\r\n"
    )
    images = read_images("multipart/form-data; boundary=x", body, shape, Limits(1, 10**7), 10**7, scale)
    assert images is not None
    return images[0]
