"""The pictures of one split as a source holds them: rows that can be read block by block."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.images.prepare.pictures import Header, Images, Place, Scale, Unreadable, as_array, decode

Labels = NDArray[np.int64]  # (N,)
Digests = NDArray[np.uint8]  # (N, 16): a hash of each picture

DIGEST = 16  # bytes
_BLOCK = 4 * 2**20  # bytes of a block of rows
_BLOCK_ROWS = 128  # most rows of a block: a killed stage repeats the blocks that it was reading
_AT_ONCE = 64 * 2**20  # pixels that are decoded at the same time; a larger picture is decoded alone
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a split, and the pictures among them that cannot be read.

    Equal pictures have equal digests. Different pictures may have equal digests if they are equal when resized.
    """

    start: int
    images: Images
    digests: Digests
    unreadable: Sequence[str] = ()


class Rows(Protocol):
    """The pictures of one split."""

    @property
    def labels(self) -> Labels: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels, after resizing."""
        ...

    def name(self, row: int) -> str:
        """How a message names the picture."""
        ...

    def blocks(self, starts: Sequence[int], size: int) -> Iterator[Block]:
        """The blocks of ``size`` rows that begin at ``starts``, in any order."""
        ...


def block_size(shape: tuple[int, int, int]) -> int:
    """How many pictures of this shape are read and written at once."""
    return int(np.clip(_BLOCK // int(np.prod(shape)), 1, _BLOCK_ROWS))


def digest(image: Images, *about: object) -> NDArray[np.uint8]:
    """A hash of a picture's shape and pixels, and of what else is known about it."""
    pixels = np.ascontiguousarray(image)
    hashed = hashlib.blake2b(repr((pixels.shape, *about)).encode(), digest_size=DIGEST)
    hashed.update(pixels.data)
    return np.frombuffer(hashed.digest(), np.uint8)


def as_kinds(digests: Digests) -> NDArray[np.void]:
    """One value for each digest, for numpy's functions on sets."""
    return np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()


@dataclass(frozen=True)
class ArrayRows:
    """Pictures of one size in an array (N, height, width, channels)."""

    images: Images
    labels: Labels
    side: int | None
    where: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return (self.side or height, self.side or width, channels)

    def name(self, row: int) -> str:
        return f"{self.where} image {row}"

    def blocks(self, starts: Sequence[int], size: int) -> Iterator[Block]:
        for start in starts:
            images = self.images[start : start + size]
            yield block_of(start, images, self.side)


def block_of(start: int, images: Images, side: int | None) -> Block:
    """The block of pictures (N, height, width, channels) that are decoded already."""
    digests = np.stack([digest(image) for image in images])
    return Block(start, resize(images, side), digests)


def resize(images: Images, side: int | None) -> Images:
    """Resizes images of one size to ``side`` x ``side`` pixels, bilinear with antialiasing."""
    if side is None or images.shape[1:3] == (side, side):
        return images
    channels = images.shape[-1]
    flat = images[..., 0] if channels == 1 else images
    return np.stack([as_array(Image.fromarray(image), side, channels) for image in flat])


@dataclass(frozen=True)
class FileRows:
    """Pictures in files, decoded on all cores."""

    paths: Sequence[Place]
    headers: Sequence[Header]
    labels: Labels
    grey: bool
    side: int | None
    scale: Scale | None

    @property
    def shape(self) -> tuple[int, int, int]:
        first = self.headers[0]
        return (self.side or first.height, self.side or first.width, 1 if self.grey else 3)

    def name(self, row: int) -> str:
        return str(self.paths[row])

    def blocks(self, starts: Sequence[int], size: int) -> Iterator[Block]:
        room = _Room(_AT_ONCE)
        height, width, channels = self.shape

        def read(start: int) -> Block:
            rows = range(start, min(start + size, len(self.paths)))
            images = np.zeros((len(rows), height, width, channels), np.uint8)
            digests = np.zeros((len(rows), DIGEST), np.uint8)
            unreadable: list[str] = []
            for place, row in enumerate(rows):
                try:
                    with room.taken(self.headers[row].pixels):
                        picture = self._decode(row)
                    image = as_array(picture, self.side, channels)
                    if image.shape != self.shape:
                        raise Unreadable("its last bytes turn it on its side; save it upright")
                    images[place], digests[place] = image, digest(image, picture.size)
                except Unreadable as error:
                    unreadable.append(f"{self.paths[row]} ({error})")
            return Block(start, images, digests, unreadable)

        yield from on_all_cores(read, starts)

    def exact_digests(self, rows: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Hashes of pictures as decoded. The hashes in blocks are of pictures as resized, which is faster."""
        return on_all_cores(lambda row: digest(np.asarray(self._decode(row))), rows)

    def _decode(self, row: int) -> Image.Image:
        return decode(self.paths[row], grey=self.grey, side=self.side, scale=self.scale)


class _Room:
    """Limits how many pixels are decoded at the same time."""

    def __init__(self, pixels: int):
        self.total = self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self.total)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


def on_all_cores(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """The results in the order of the items. Threads are enough, because decoders release Python's lock."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(workers, "prepare")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 3 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the caller stops early, as at an interruption
        pool.shutdown(wait=True, cancel_futures=True)
