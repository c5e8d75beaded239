"""What a picture file will cost, read from its structure before Pillow sees it.

Pillow reads the pieces of a file (JPEG segments, PNG chunks) one by one in Python before it knows the size of the
picture, and a progressive JPEG is decoded once per scan. So a small file can cost minutes. Here, the pieces are
counted without being read. Every JPEG is treated alike, including one that Pillow calls MPO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.errors import RequestError

# One scan of a huge picture fits in 30 bytes. Encoders write about 10 scans.
MAX_SCANS = 40
# Encoders write about one piece per 8 KiB of pixels, besides some dozens for everything else.
MAX_PIECES = 1000
BYTES_PER_PIECE = 1024
# JPEG allows any number of fill bytes before a marker. Encoders write none, or a few.
MAX_FILL = 1024
# The largest file of a picture has this many bytes per pixel (four channels of 32 bits) and this many for what is
# not pixels: colour profiles, previews, and the films that telephones append.
BYTES_PER_PIXEL = 16
SPARE_BYTES = 4 * 2**20
# Work per byte beside the pixels: text in a PNG may inflate a thousandfold, and Pillow reads EXIF data in Python.
PNG_INFLATION, JPEG_INFLATION = 1000, 100

_BEFORE_SCAN = re.compile(rb"\xff[^\x00\xff]")
_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # without the restart markers within a scan
_SOS, _EOI = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """The cost of a picture."""

    pixels: int
    work: int  # pixels or bytes that decoding may have to produce


def read_header(data: bytes, which: str) -> Header | None:
    """Returns the cost of a PNG, JPEG or WebP file; None if the file is none of these.

    Raises RequestError if the file would cost more than a picture of its size ever needs.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _png(data, which)
    elif data.startswith(b"\xff\xd8\xff"):
        header = _jpeg(data, which)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = _webp(data, which)
    else:
        return None
    check_size(len(data), header.pixels, which)
    return header


def check_size(size: int, pixels: int, which: str) -> None:
    """Raises RequestError if a file has more bytes than its pixels can need."""
    if size > SPARE_BYTES + BYTES_PER_PIXEL * pixels:
        raise RequestError(
            413, f"{which} has {size:,} bytes for {pixels:,} pixels; save it without what is not pixels."
        )


def _png(data: bytes, which: str) -> Header:
    position, pieces, beside, most = 8, 0, 0, _most_pieces(data)
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data[12:16] != b"IHDR" or not width or not height:
        raise _damaged(which)
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        if kind == b"IEND":
            break
        if kind not in (b"IHDR", b"IDAT", b"PLTE"):
            beside += length
        position += 12 + length
        if (pieces := pieces + 1) > most:
            raise _too_many(which, "PNG", "chunks", most)
    return Header(width * height, width * height + PNG_INFLATION * beside)


def _jpeg(data: bytes, which: str) -> Header:
    position, pieces, fill, scans, beside, pixels, most = 2, 0, 0, 0, 0, 0, _most_pieces(data)
    while True:
        if scans:
            found = _IN_SCAN.search(data, position)
        else:
            found = _BEFORE_SCAN.search(data, position, position + MAX_FILL + 2)
            fill += (found.start() if found else len(data)) - position
            if fill > MAX_FILL:
                raise RequestError(422, f"{which} is a JPEG with more than {MAX_FILL} fill bytes.")
        if not found or ((marker := data[found.start() + 1]) == _EOI and scans):
            break
        if (pieces := pieces + 1) > most:
            raise _too_many(which, "JPEG", "segments", most)
        position = found.end()
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[position : position + 2])
        if marker == _SOS:
            scans += 1
        elif marker in _FRAMES:
            size = data[position + 3 : position + 7]
            pixels = max(pixels, int.from_bytes(size[:2]) * int.from_bytes(size[2:]))
        elif marker >= 0xE0:
            beside += length
        position += max(length, 2)
    if scans > MAX_SCANS:
        raise _too_many(which, "JPEG", "scans", MAX_SCANS)
    if not pixels:
        raise _damaged(which)
    return Header(pixels, pixels * max(1, scans) + JPEG_INFLATION * beside)


def _webp(data: bytes, which: str) -> Header:
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        case b"VP8L" if data[20:21] == b"\x2f":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
        case b"VP8X" if len(data) >= 30:
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        case _:
            raise _damaged(which)
    if not width * height:
        raise _damaged(which)
    return Header(width * height, width * height)


def _most_pieces(data: bytes) -> int:
    return MAX_PIECES + len(data) // BYTES_PER_PIECE


def _damaged(which: str) -> RequestError:
    return RequestError(422, f"{which} is truncated or damaged.")


def _too_many(which: str, kind: str, pieces: str, most: int) -> RequestError:
    return RequestError(422, f"{which} is a {kind} with more than {most} {pieces}; save it with fewer.")
