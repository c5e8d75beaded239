"""Reads a .npz file: train_images and train_labels, the same for val and test, and class_names.

The arrays of images are read block by block, so that a file larger than the memory can be used. Nothing that could hold a pickle is read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stages.errors import UserError, of_system
from stages.images.prepare.rows import Block, Labels, block_of

_PREFIXES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_NAMES = {  # the names that an array may have, in lower case: train_images, and Keras' x_train
    **{f"{prefix}_images": (split, "images") for split, names in _PREFIXES.items() for prefix in names},
    **{f"{prefix}_labels": (split, "labels") for split, names in _PREFIXES.items() for prefix in names},
    **{f"x_{prefix}": (split, "images") for split, names in _PREFIXES.items() for prefix in names},
    **{f"y_{prefix}": (split, "labels") for split, names in _PREFIXES.items() for prefix in names},
}
_CLASSES = "class_names"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
_SMALL = 2**28  # bytes of an array of labels or names
_EXPECTED = "train_images, train_labels, the same for val and test, and class_names"


@dataclass(frozen=True)
class Npz:
    """The splits of a file and the names of its classes; and the arrays that are not used."""

    splits: Mapping[str, NpzRows]
    classes: Sequence[str]
    left_out: Counter[str]


@dataclass(frozen=True)
class _Header:
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class NpzRows:
    """The images of one split, read from the file when they are needed."""

    path: Path
    header: _Header
    labels: Labels
    split: str
    side: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, *channels = self.header.shape
        return (self.side or height, self.side or width, channels[0] if channels else 1)

    def name(self, row: int) -> str:
        return f"{self.split} image {row} of {self.path}"

    def blocks(self, starts: Sequence[int], size: int) -> Iterator[Block]:
        wanted = set(starts)
        rows, *rest = self.header.shape
        pixels = int(np.prod(rest))
        shape = (*rest, 1) if len(rest) == 2 else tuple(rest)
        with _opened(self.path) as file, _reading(self.path), file.open(self.header.member) as member:
            _header_of(self.header.member, member)
            for start in range(0, rows, size):
                count = min(size, rows - start)
                content = _exactly(member, count * pixels)
                if start in wanted:
                    images = np.frombuffer(content, np.uint8).reshape(count, *shape)
                    yield block_of(start, images, self.side)


def read_npz(path: Path, side: int | None) -> Npz:
    """What the file holds. Raises UserError when arrays are missing, ambiguous or inconsistent."""
    if not path.is_file():
        raise UserError(
            f"data.root is {path}, which is not a file; with data.name: npz it must name the .npz file"
        )
    headers = _headers(path)
    found, names, left_out = _sorted(path, headers)
    if "train" not in {split for split, _ in found}:
        raise UserError(f"{path} has no array train_images; it has {_shown(headers)} (expected: {_EXPECTED})")
    splits: dict[str, NpzRows] = {}
    for split in ("train", "val", "test"):
        images, labels = found.get((split, "images")), found.get((split, "labels"))
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            missing = f"{split}_{'images' if images is None else 'labels'}"
            raise UserError(f"{path} has no array {missing}; it has {_shown(headers)}")
        _check_images(path, split, images)
        splits[split] = NpzRows(
            path, images, _labels(path, split, _array(path, labels), images.shape[0]), split, side
        )
    shapes = {rows.header.shape[1:] for rows in splits.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{path}: the splits' images differ in shape ({sorted(shapes)}); give all images the same shape"
        )
    return Npz(splits, _classes(path, names, splits["train"].labels), left_out)


def _headers(path: Path) -> dict[str, _Header]:
    """The arrays in the file by their names, none of them read."""
    headers: dict[str, _Header] = {}
    with _opened(path) as file, _reading(path):
        for member in file.namelist():
            with file.open(member) as opened:
                headers[member.removesuffix(".npy")] = _header_of(member, opened)
    return headers


def _sorted(
    path: Path, headers: Mapping[str, _Header]
) -> tuple[dict[tuple[str, str], _Header], _Header | None, Counter[str]]:
    """The arrays of images and labels by split, the array of class names, and the names of the others."""
    found: dict[tuple[str, str], _Header] = {}
    left_out: Counter[str] = Counter()
    for name, header in headers.items():
        plain = name.casefold()
        if place := _NAMES.get(plain):
            if place in found:
                raise UserError(f"{path}: {found[place].member} and {header.member} are the same; keep one")
            found[place] = header
        elif plain != _CLASSES and any(word in plain for word in ("image", "label", "train", "val", "test")):
            raise UserError(
                f"{path}: the array {name} looks like part of a split, but is none that is known; rename or remove it"
                f" (expected: {_EXPECTED})"
            )
        elif plain != _CLASSES:
            left_out[f"array {name}"] += 1
    return found, headers.get(_CLASSES), left_out


def _check_images(path: Path, split: str, header: _Header) -> None:
    if header.dtype != np.uint8:
        raise UserError(f"{path}: {split}_images is {header.dtype}; convert it to uint8, 0 to 255")
    if len(header.shape) not in (3, 4) or (len(header.shape) == 4 and header.shape[-1] not in (1, 3)):
        raise UserError(
            f"{path}: {split}_images has shape {header.shape}; expected (N, height, width)"
            " or (N, height, width, 1 or 3)"
        )
    if header.fortran and header.bytes:
        raise UserError(
            f"{path}: {split}_images is in Fortran order, which cannot be read block by block; save"
            " numpy.ascontiguousarray of it"
        )
    if 0 in header.shape[1:]:
        raise UserError(
            f"{path}: {split}_images has shape {header.shape}, so its images have no pixels; correct it"
        )


def _labels(path: Path, split: str, labels: NDArray[Any], images: int) -> Labels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{path}: {split}_labels has shape {labels.shape} and type {labels.dtype}; expected one integer per image"
        )
    if len(labels) != images:
        raise UserError(
            f"{path}: {split} has {images} images and {len(labels)} labels; give one label per image"
        )
    return labels.astype(np.int64)


def _classes(path: Path, header: _Header | None, labels: Labels) -> list[str]:
    if header is None:
        return [str(number) for number in range(_count_of_classes(path, labels))]
    names = np.squeeze(_array(path, header))
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise UserError(
            f"{path}: class_names has shape {header.shape} and type {header.dtype}; expected one name per class"
        )
    try:
        classes = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except UnicodeDecodeError:
        raise UserError(f"{path}: class_names are bytes that are not UTF-8; save them as text") from None
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise UserError(
            f"{path}: class_names has {twice[0]!r} {classes.count(twice[0])} times; name classes apart"
        )
    return classes


def _count_of_classes(path: Path, labels: Labels) -> int:
    """One more than the highest label; all labels from 0 to that one must be there."""
    used = np.unique(labels)
    if len(used) and used[0] == 1 and used[-1] == len(used):
        raise UserError(
            f"{path}: train_labels run from 1 to {used[-1]}; labels start at 0, so subtract 1 from all labels"
        )
    if len(used) and used[0] >= 0 and used[-1] >= len(used):
        missing = next(label for label, other in enumerate(used) if label != other)
        raise UserError(
            f"{path}: train_labels go up to {used[-1]}, but no image has label {missing}; number the classes from 0"
            " without gaps"
        )
    return len(used)


def _opened(path: Path) -> zipfile.ZipFile:
    with _reading(path):
        with path.open("rb") as file:
            magic = file.read(len(npy.MAGIC_PREFIX))
        if magic == npy.MAGIC_PREFIX:
            raise UserError(
                f"{path} is a single array (.npy), whatever its name says; save images and labels with numpy.savez"
            )
        return zipfile.ZipFile(path)


def _header_of(member: str, opened: IO[bytes]) -> _Header:
    """The header of an array; the file is left at the first byte of its data."""
    version = npy.read_magic(opened)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(opened)
    if dtype.hasobject:
        raise UserError(
            f"the array {member} holds Python objects, which are not read; save it without objects"
        )
    return _Header(member, tuple(int(size) for size in shape), dtype, fortran)


def _array(path: Path, header: _Header) -> NDArray[Any]:
    """A whole array: labels or names."""
    if header.bytes > _SMALL:
        raise UserError(
            f"{path}: {header.member} has {header.bytes >> 20} MiB, which is too much for labels or names"
        )
    with _opened(path) as file, _reading(path), file.open(header.member) as member:
        _header_of(header.member, member)
        content = _exactly(member, header.bytes)
    array = np.frombuffer(content, header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _exactly(member: IO[bytes], count: int) -> bytes:
    content = member.read(count)
    if len(content) != count:
        raise EOFError("it ends early")
    return content


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what zipfile, zlib and numpy raise at a broken file into a UserError."""
    try:
        yield
    except _BROKEN as error:
        known = of_system(error, path) if isinstance(error, OSError) else None
        raise known or UserError(
            f"{path} cannot be read as .npz ({' '.join(str(error).split())}); write it with numpy.savez, without"
            " objects"
        ) from None


def _shown(headers: Mapping[str, _Header]) -> str:
    return ", ".join(list(headers)[:10]) or "none"
