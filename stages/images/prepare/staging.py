"""Decodes every picture once, into files that survive an interruption, and copies the splits out of them.

One file per split of the source holds all of its pictures in order. Files are written and read at offsets instead of
being mapped, so that the memory of the process does not grow with the data. A list of the blocks that are on disk lets
an interrupted stage go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stages.errors import UserError
from stages.images.prepare.pictures import Images
from stages.images.prepare.rows import DIGEST, Digests, FileRows, Rows, as_kinds, block_size
from stages.images.prepare.sources import unreadable

_SAVED_EVERY = 5.0  # seconds between two notes of what is on disk

Count = Callable[[str, int, int], None]  # a title, how much is done, how much there is


class Staged:
    """The decoded pictures of one split of the source, in a file of uint8 rows."""

    def __init__(self, folder: Path, name: str, rows: Rows):
        self.rows = rows
        self.shape = rows.shape
        self.row_bytes = int(np.prod(rows.shape))
        self.block = block_size(rows.shape)
        self.pixels = folder / f"{name}.u8"
        self.notes = folder / f"{name}.done.npz"
        self.digests: Digests = np.zeros((len(rows.labels), DIGEST), np.uint8)

    def fill(self, count: Callable[[int], None]) -> Sequence[str]:
        """Writes the blocks that are not on disk yet. Returns what cannot be read.

        ``count`` is called with the number of pictures that are done.
        """
        starts = range(0, len(self.rows.labels), self.block)
        done = self._done(len(starts))
        problems: list[str] = []
        missing = [start for number, start in enumerate(starts) if not done[number]]
        finished = len(self.rows.labels) - sum(
            min(self.block, len(self.rows.labels) - start) for start in missing
        )
        saved = time.monotonic()
        with open(os.open(self.pixels, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            try:
                for block in self.rows.blocks(missing, self.block):
                    problems += block.unreadable
                    self.digests[block.start : block.start + len(block.images)] = block.digests
                    os.pwrite(file.fileno(), block.images.tobytes(), block.start * self.row_bytes)
                    done[block.start // self.block] = not block.unreadable
                    finished += len(block.images)
                    if time.monotonic() - saved > _SAVED_EVERY:
                        self._save(file.fileno(), done)
                        saved = time.monotonic()
                    count(finished)
            finally:
                self._save(file.fileno(), done)
        return problems

    def read(self, indices: NDArray[np.int64]) -> Iterator[Images]:
        """The pictures of these rows, some at a time; rising indices are read fastest."""
        with self.pixels.open("rb") as file:
            for first in range(0, len(indices), self.block):
                wanted = indices[first : first + self.block]
                images = np.empty((len(wanted), *self.shape), np.uint8)
                if len(wanted) and wanted[-1] - wanted[0] == len(wanted) - 1:
                    file.seek(int(wanted[0]) * self.row_bytes)
                    file.readinto(images.reshape(-1).data)
                else:
                    for place, row in enumerate(wanted):
                        file.seek(int(row) * self.row_bytes)
                        file.readinto(images[place].reshape(-1).data)
                yield images

    def _done(self, blocks: int) -> NDArray[np.bool_]:
        """Which blocks are on disk."""
        try:
            with np.load(self.notes, allow_pickle=False) as notes:
                done, digests = notes["done"], notes["digests"]
        except (OSError, ValueError, KeyError, EOFError):
            return np.zeros(blocks, bool)
        if done.shape != (blocks,) or digests.shape != self.digests.shape:
            return np.zeros(blocks, bool)
        self.digests = digests
        return done

    def _save(self, file: int, done: NDArray[np.bool_]) -> None:
        """Notes which blocks are on disk, after they are."""
        os.fsync(file)
        new = self.notes.with_suffix(".new.npz")
        np.savez(new, done=done, digests=self.digests)
        os.replace(new, self.notes)


def decode_all(folder: Path, splits: Mapping[str, Rows], count: Count) -> dict[str, Staged]:
    """Decodes all pictures. Raises UserError when the disk is too small, or with a list of unreadable pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = {name: Staged(folder, name, rows) for name, rows in splits.items()}
    _check_disk(folder, staged)
    total = sum(len(rows.labels) for rows in splits.values())
    before = 0
    problems: list[str] = []
    for part in staged.values():
        problems += part.fill(lambda done, before=before: count("pictures", before + done, total))
        before += len(part.rows.labels)
    if problems:
        raise unreadable(problems)
    _compare_exactly(staged)
    return staged


def _compare_exactly(staged: Mapping[str, Staged]) -> None:
    """Takes the exact hashes of pictures that look the same when resized."""
    digests = np.concatenate([part.digests for part in staged.values()])
    _, groups, sizes = np.unique(as_kinds(digests), return_inverse=True, return_counts=True)
    alike = np.split(sizes[groups] > 1, np.cumsum([len(part.digests) for part in staged.values()])[:-1])
    for part, chosen in zip(staged.values(), alike, strict=True):
        rows = np.flatnonzero(chosen)
        if len(rows) and isinstance(part.rows, FileRows) and part.rows.side is not None:
            part.digests[rows] = list(part.rows.exact_digests(rows.tolist()))


def _check_disk(folder: Path, staged: Mapping[str, Staged]) -> None:
    """Raises UserError when the decoded pictures do not fit on the disk. They are there twice for a moment."""
    there = sum(part.pixels.stat().st_size for part in staged.values() if part.pixels.exists())
    needed = 2 * sum(part.row_bytes * len(part.rows.labels) for part in staged.values())
    free = shutil.disk_usage(folder).free + there
    if needed > free:
        side = max(part.shape[0] for part in staged.values())
        raise UserError(
            f"the decoded pictures need {needed / 1e9:.1f} GB of disk at side {side}, and {free / 1e9:.1f} GB are free;"
            " free some, or set data.image_size to a smaller side"
        )


def key_of(*parts: object) -> str:
    """The name of the folder for pictures that are decoded in this way."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


class Written:
    """Writes one array of images as .npy, row by row, and counts the values of each channel."""

    def __init__(self, path: Path, shape: tuple[int, int, int], rows: int):
        self.file = path.open("wb")
        npy.write_array_header_1_0(
            self.file,
            {
                "descr": npy.dtype_to_descr(np.dtype(np.uint8)),
                "fortran_order": False,
                "shape": (rows, *shape),
            },
        )
        self.counts = np.zeros((shape[-1], 256), np.int64)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, images: Images, *, counted: bool) -> None:
        if counted:
            for channel, counts in enumerate(self.counts):
                counts += np.bincount(images[..., channel].ravel(), minlength=256)
        self.file.write(images.data)
