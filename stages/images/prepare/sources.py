"""Opens the data set that params.yaml names: its splits as rows that can be read, and what is left out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stages.errors import UserError
from stages.images.params import DataParams
from stages.images.prepare import folders, named, shards
from stages.images.prepare.depth import scale_of
from stages.images.prepare.folders import Labelled, Listing
from stages.images.prepare.npz import read_npz
from stages.images.prepare.pictures import Header, Place, Scale, Unreadable, check, read_header
from stages.images.prepare.rows import ArrayRows, FileRows, Rows, on_all_cores

SPLITS = ("train", "val", "test")
_LARGEST_UNRESIZED = 2**20  # pixels of a picture that a network can take in full
_SHOWN = 20  # unreadable files in a message
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Source:
    """The splits of a data set, at least ``train``, and the class names in the order of the labels."""

    splits: Mapping[str, Rows]
    classes: Sequence[str]
    left_out: Counter[str] = field(default_factory=Counter)  # files that are not used, by reason
    first_frames: int = 0  # pictures of several frames, of which the first is used
    scale: Scale | None = None  # of pixels of more than 8 bits
    scale_from: str = ""


def read_source(params: DataParams, count: Callable[[str, int, int], None] = lambda *_: None) -> Source:
    """The data set of params.yaml. Raises UserError when data are missing, unreadable or inconsistent.

    ``count`` is called with a title, how much is done, and how much there is in all.
    """
    root = Path(params.root).expanduser()
    match params.name:
        case "imagefolder":
            source = _pictures(root, folders.listing(root), params, count)
        case "webdataset":
            source = _pictures(root, shards.listing(root), params, count)
        case "npz":
            npz = read_npz(root, params.image_size)
            source = Source(npz.splits, npz.classes, npz.left_out)
        case name:
            arrays, classes = named.READERS[name](root)
            source = Source(
                {
                    split: ArrayRows(images, labels, params.image_size, f"{name}: {split}")
                    for split, (images, labels) in arrays.items()
                },
                classes,
            )
    _check_labels(source, root)
    _check_cost(source, params)
    return source


def unreadable(problems: Sequence[str]) -> UserError:
    """The error that lists pictures that cannot be read; each problem is a path and a reason."""
    if len(problems) == 1:
        return UserError(f"the picture {problems[0]} cannot be read; repair or remove it")
    shown = "; ".join(problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return UserError(f"{len(problems)} pictures cannot be read: {shown}{more}; repair or remove them")


def _pictures(
    root: Path, found: Listing, params: DataParams, count: Callable[[str, int, int], None]
) -> Source:
    """Pictures in files or in shards, after a look at all of their headers."""
    paths = [path for files in found.files.values() for path, _ in files]

    def each(
        work: Callable[[Place], _Result],
        items: Sequence[Place],
        title: str = "ranges",
        run: Callable[..., Iterator[Any]] = on_all_cores,
    ) -> Iterator[tuple[Place, _Result | Unreadable]]:
        def safe(path: Place) -> tuple[Place, _Result | Unreadable]:
            try:
                return path, work(path)
            except Unreadable as error:
                return path, error

        for done, result in enumerate(run(safe, items), 1):
            count(title, done, len(items))
            yield result

    headers: dict[Place, Header] = {}
    problems: list[str] = []
    # One after the other, because reading headers is Python's work, at which threads only wait for each other.
    for path, header in each(read_header, paths, "headers", map):
        if isinstance(header, Unreadable):
            problems.append(f"{path} ({header})")
        else:
            headers[path] = header
    if problems:  # the others are decoded too, so that the user learns of all at once
        limited = [path for path, header in headers.items() if header.pixels <= params.max_megapixels * 1e6]
        rest = each(check, limited, "checks")
        problems += [f"{path} ({error})" for path, error in rest if isinstance(error, Unreadable)]
        raise unreadable(problems)
    _check_sizes(root, headers, params)
    scaled = scale_of(headers, [path for path, _ in found.files["train"]], each)
    grey = all(header.grey for header in headers.values())
    scale, scale_from = scaled or (None, "")
    return Source(
        {split: _rows(files, headers, grey, params, scale) for split, files in found.files.items()},
        found.classes,
        found.left_out,
        sum(header.frames for header in headers.values()),
        scale,
        scale_from,
    )


def _rows(
    files: Sequence[Labelled],
    headers: Mapping[Place, Header],
    grey: bool,
    params: DataParams,
    scale: Scale | None,
) -> FileRows:
    paths = [path for path, _ in files]
    labels = np.array([label for _, label in files], np.int64)
    return FileRows(paths, [headers[path] for path in paths], labels, grey, params.image_size, scale)


def _check_sizes(root: Path, headers: Mapping[Place, Header], params: DataParams) -> None:
    """Raises UserError when a picture is too large, or when pictures differ in size and are not resized."""
    limit = params.max_megapixels
    if large := [path for path, header in headers.items() if header.pixels > limit * 1e6]:
        header = headers[large[0]]
        raise UserError(
            f"{large[0]} has {header.width}x{header.height} pixels, more than data.max_megapixels ({limit}) allows"
            f" ({len(large)} such pictures); raise data.max_megapixels if the size is right, or remove them"
        )
    if params.image_size is not None or not headers:
        return
    sizes = {(header.width, header.height) for header in headers.values()}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise UserError(
            f"{root}: images differ in size ({shown}, ...); set data.image_size to resize them, e.g. to 32"
        )


def _check_labels(source: Source, root: Path) -> None:
    classes = len(source.classes)
    for split, rows in source.splits.items():
        wrong = np.flatnonzero((rows.labels < 0) | (rows.labels >= classes))
        if len(wrong):
            raise UserError(
                f"{root}: label {rows.labels[wrong[0]]} of {split} image {wrong[0]} is outside the {classes} classes"
                f" 0..{classes - 1}; correct it"
            )


def _check_cost(source: Source, params: DataParams) -> None:
    """Raises UserError when a network could not be trained on pictures of this size."""
    height, width, _ = source.splits["train"].shape if len(source.splits["train"].labels) else (0, 0, 0)
    if params.image_size is None and height * width > _LARGEST_UNRESIZED:
        raise UserError(
            f"the pictures have {width}x{height} pixels, and a network takes at most {_LARGEST_UNRESIZED:,} of them"
            " in full; set data.image_size to resize the pictures, e.g. to 64"
        )
