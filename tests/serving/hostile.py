"""Files that are small for what it costs to read them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

from tests.serving.conftest import saved

MIB = 2**20


def _frame(size: tuple[int, int], jpeg: bytes) -> tuple[int, bytes]:
    """Where the frame header of a JPEG begins, and the JPEG with another size in it."""
    at = next(i for i in range(len(jpeg)) if jpeg[i] == 0xFF and jpeg[i + 1] in (0xC0, 0xC2))
    return at, jpeg[: at + 5] + struct.pack(">HH", size[1], size[0]) + jpeg[at + 9 :]


def jpeg(size: tuple[int, int] = (8, 8), **options: bool) -> bytes:
    """A small JPEG."""
    return saved(Image.new("L", size, 90), "JPEG", **options)


def scans(count: int, size: tuple[int, int] = (4000, 4000), before: bytes = b"") -> bytes:
    """A progressive JPEG whose first scan is repeated, which makes a decoder go through the whole picture each time."""
    content = jpeg((16, 16), progressive=True)
    _, content = _frame(size, content)
    start = content.index(b"\xff\xda")
    end = content.index(b"\xff", start + 2 + int.from_bytes(content[start + 2 : start + 4]))
    return content[:2] + before + content[2:start] + content[start:end] * count + b"\xff\xd9"


def multi_picture(content: bytes) -> bytes:
    """The JPEG with the segment that makes Pillow call it MPO."""
    # An index of little-endian TIFF form: version, number of pictures (2), and an entry of 16 bytes for each.
    entries = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack("<L", 2))]
    index = b"II*\x00" + struct.pack("<LH", 8, 3)
    for tag, kind, count, value in entries:
        index += struct.pack("<HHL", tag, kind, count) + value
    index += struct.pack("<HHLL", 0xB002, 7, 32, 8 + 2 + 3 * 12 + 4) + bytes(4)
    index += struct.pack("<LLLHH", 0x030000, len(content), 0, 0, 0) * 2
    segment = b"MPF\x00" + index
    return content[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + content[2:]


def segments(count: int) -> bytes:
    """Empty application segments before the frame of a JPEG of 8 x 8 pixels."""
    content = jpeg()
    return content[:2] + b"\xff\xe5\x00\x02" * count + content[2:]


def fill(count: int) -> bytes:
    """Fill bytes before the frame of a JPEG."""
    content = jpeg()
    return content[:2] + b"\xff" * count + content[2:]


def junk(count: int) -> bytes:
    """Bytes that belong to no segment, before the frame of a JPEG."""
    content = jpeg()
    return content[:2] + b"\x00" * count + content[2:]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png(size: tuple[int, int], data: bytes, before: bytes = b"", *, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG with this compressed data and other chunks before it."""
    head = struct.pack(">LLBBBBB", *size, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", data) + chunk(b"IEND")


def chunks(count: int) -> bytes:
    """Private chunks before the data of a PNG of 1 x 1 pixel."""
    return png((1, 1), zlib.compress(b"\x00\x00"), chunk(b"prVt") * count)


def text(count: int) -> bytes:
    """Compressed text in a PNG, each part of which inflates to a megabyte."""
    return png(
        (1, 1),
        zlib.compress(b"\x00\x00"),
        chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(MIB - 1))) * count,
    )


def webp_canvas(size: tuple[int, int]) -> bytes:
    """A WebP of 8 x 8 pixels on a huge canvas."""
    content = saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]
    canvas = bytes(4) + (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<L", 10) + canvas + content
    return b"RIFF" + struct.pack("<L", len(body)) + body


def frames(count: int) -> bytes:
    """A GIF with comments before its picture."""
    content = saved(Image.new("L", (8, 8)), "GIF")
    at = content.index(b",\x00\x00\x00\x00")
    return content[:at] + b"!\xfe\x01x\x00" * count + content[at:]


def tiff_tags(count: int) -> bytes:
    """A TIFF with this many tags in its directory."""
    file = BytesIO(saved(Image.new("L", (8, 8)), "TIFF"))
    content = bytearray(file.getvalue())
    start = len(content)
    content[4:8] = struct.pack("<L", start)
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 64)] + [(60000, 4, 0xFFFFFFF, 8)] * min(
        count, 65000
    )
    return (
        bytes(content)
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHLL", *e) for e in entries)
        + bytes(4)
    )


def plain_numbers(size: int) -> bytes:
    """A PPM whose pixels are text, which Pillow reads in Python."""
    count = size // 2
    side = int((count / 3) ** 0.5)
    return b"P3 %d %d 9 " % (side, side) + b"1 " * (3 * side * side)


def flat(size: tuple[int, int], mode: str) -> bytes:
    """A PNG of one colour, which is small for its pixels."""
    return saved(Image.new(mode, size), "PNG", compress_level=9)


def noise(size: tuple[int, int], kind: str, **options: object) -> bytes:
    """Pixels that do not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return saved(Image.fromarray(pixels), kind, **options)


# Name -> the file. All have at most 16 MB.
FILES: dict[str, Callable[[], bytes]] = {
    "multi-picture JPEG with thousands of scans": lambda: multi_picture(scans(20_000)),
    "JPEG with as many scans as are allowed": lambda: scans(40, (5000, 5000)),
    "multi-picture JPEG with as many scans as are allowed": lambda: multi_picture(scans(40, (5000, 5000))),
    "JPEG with four million segments": lambda: segments(3_900_000),
    "JPEG with as many segments as are allowed": lambda: segments(900),
    "JPEG with 15 million fill bytes": lambda: fill(15_000_000),
    "JPEG with 15 million stray bytes": lambda: junk(15_000_000),
    "PNG with 1.2 million chunks": lambda: chunks(1_200_000),
    "PNG with text that inflates": lambda: text(60),
    "PNG with a lot of text that inflates": lambda: text(14_000),
    "WebP with a huge canvas": lambda: webp_canvas((16_383, 16_383)),
    "WebP with a large canvas": lambda: webp_canvas((5000, 5000)),
    "GIF with three million comments": lambda: frames(3_000_000),
    "GIF with some comments": lambda: frames(10_000),
    "TIFF with 65,000 damaged tags": lambda: tiff_tags(65_000),
    "PPM of text": lambda: plain_numbers(15_000_000),
    "PNG of 25 megapixels with transparency": lambda: flat((5000, 5000), "RGBA"),
    "PNG of 25 megapixels with 16 bits": lambda: flat((5000, 5000), "I;16"),
    "BMP of 16 MB": lambda: noise((2300, 2300), "BMP"),
    "PNG of 16 MB": lambda: noise((2300, 2300), "PNG", compress_level=0),
    "JPEG of 16 MB": lambda: noise((2200, 2200), "JPEG", quality=98, subsampling=0),
}
