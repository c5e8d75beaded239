"""Labels of pictures that lie flat in the folder of a split, as in ImageNet's val/: a text or CSV file names them.

Each row has the name of a picture and its class: the name of a class folder of train, or its number in the order of
the sorted names, counted from 0. Fields are separated by commas, tabs or spaces; a heading is allowed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from stages.errors import UserError

_LARGEST = 256 * 2**20  # bytes of a list
_HEADINGS = {"filename", "file", "image", "imageid", "name", "path", "picture", "id"}


def labels_of(
    folder: Path, pictures: Sequence[Path], classes: Sequence[str], split: str
) -> tuple[list[int], Path]:
    """The label of each picture, and the file that they were read from.

    Raises UserError when there is no list, or when it does not name exactly one known class for every picture.
    """
    path = _found(folder, split)
    if path is None:
        raise UserError(
            f"{folder} has {len(pictures)} pictures and no class folders; sort them into folders, or add"
            f" {folder.name}.txt with a picture and its class in every row"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for line, (picture, name) in enumerate(_rows(path), 1):
        # ImageNet's lists of boxes continue the field after the class.
        label = numbers.get(name, numbers.get(name.split()[0]) if name.split() else None)
        if label is None and name.isdecimal() and len(name) < 10 and int(name) < len(classes):
            label = int(name)
        if label is None:
            raise UserError(
                f"{path}, row {line}: {name!r} is neither a class folder of train nor a number from 0 to"
                f" {len(classes) - 1}; correct it"
            )
        if labels.setdefault(picture, label) != label:
            raise UserError(f"{path}, row {line}: {picture} has a second class; keep one")
    found: list[int] = []
    for picture in pictures:
        label = labels.get(picture.name, labels.get(picture.stem))
        if label is None:
            raise UserError(f"{path} does not name {picture.name}; add its class, or remove the picture")
        found.append(label)
    return found, path


def _found(folder: Path, split: str) -> Path | None:
    """The list of a split, in its folder or beside it."""
    stems = {
        folder.name.casefold(),
        split,
        f"{split}_labels",
        f"{split}_list",
        f"loc_{split}_solution",
        "labels",
    }
    for place in (folder, folder.parent):
        for path in sorted(place.iterdir()):
            if (
                path.suffix.lower() in (".txt", ".csv", ".tsv")
                and path.stem.casefold() in stems
                and path.is_file()
            ):
                return path
    return None


def _rows(path: Path) -> list[tuple[str, str]]:
    """The picture and the class of each row."""
    if path.stat().st_size > _LARGEST:
        raise UserError(
            f"{path} is larger than {_LARGEST >> 20} MiB; it should hold one short row per picture"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read ({error}); save it as UTF-8 text") from None
    rows: list[tuple[str, str]] = []
    for line, fields in enumerate(_fields(text), 1):
        if not fields or (line == 1 and _HEADINGS & {re.sub(r"\W|_", "", fields[0].casefold())}):
            continue
        if len(fields) < 2:
            raise UserError(
                f"{path}, row {line}: expected a picture and its class, found {fields[0]!r}; correct it"
            )
        rows.append((Path(fields[0]).name, fields[1]))
    return rows


def _fields(text: str) -> list[list[str]]:
    lines = text.splitlines()
    if any("," in line or "\t" in line for line in lines[:1]):
        separator = "\t" if "\t" in lines[0] else ","
        return [[field.strip() for field in row] for row in csv.reader(lines, delimiter=separator)]
    return [line.rsplit(maxsplit=1) for line in lines]
