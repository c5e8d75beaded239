"""Sorts the files under ``data.root``: pictures by class and split, and the rest by why they are left out.

Every file is either used or counted under a reason. DVC does not notice changes behind a link to a folder, so such
links are refused.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stages.errors import UserError, passing
from stages.images.prepare import lists
from stages.images.prepare.pictures import SUFFIXES, Place
from stages.plumbing import watched

LAYOUT = "CLASS/picture.png, or train/CLASS/picture.png with test/CLASS/ and val/CLASS/ beside train"

_SPELLINGS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validate", "validation", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluate", "evaluation", "holdout"),
}
_ROLES = {spelling: split for split, spellings in _SPELLINGS.items() for spelling in spellings}
# Words and numbers that are written around the name of a split: train_set, 2-Testing, images_train, val2017.
_AROUND = re.compile(r"(data(set)?s?|sets?|split|images?|imgs?|pictures?|photos?|files?|folder)|[\W_]+|\d+")
_TOOLS = {
    "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__",
    "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r",
}  # fmt: skip
_SHOWN = 3  # names in a message

Labelled = tuple[Place, int]


@dataclass
class Listing:
    """The pictures of a folder, by split, each with the label of its class; and what is left out, by reason."""

    classes: Sequence[str]
    files: dict[str, list[Labelled]]
    left_out: Counter[str] = field(default_factory=Counter)


def listing(root: Path) -> Listing:
    """The pictures under ``root``. Raises UserError when the layout is unclear or something cannot be watched by DVC."""
    if not root.is_dir():
        raise UserError(
            f"data.root is {root}, which is not a folder; with data.name: imagefolder it must hold one folder per class"
        )
    walk = _Walk(root)
    splits = _splits(root, walk)
    classes = _classes(splits["train"], walk)
    folders = {key: name for name, key in ((name, _key(name)) for name in classes)}
    files: dict[str, list[Labelled]] = {}
    for split, folder in splits.items():
        found = _of_split(folder, folders, classes, walk, split)
        if split == "train" or found:
            files[split] = found
    walk.count_outside(splits.values())
    walk.refuse_unwatched()
    return Listing(classes, files, walk.left_out)


def split_of(name: str) -> str | None:
    """The split that a name says, in any case and in the usual spellings: "Train", "test_set", "VALIDATION"."""
    return _ROLES.get(_AROUND.sub("", unicodedata.normalize("NFC", name).casefold()))


def _key(name: str) -> str:
    """Equal for two spellings of one name that differ in case or in Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _splits(root: Path, walk: _Walk) -> dict[str, Path]:
    """The folder of each split, ``root`` being that of train when there are no splits."""
    names = walk.folders(root)
    roles = {name: split_of(name) for name in names}
    named = {name: role for name, role in roles.items() if role}
    if not named:
        _refuse_equal_subfolders(root, names, walk)
        return {"train": root}
    by_role: dict[str, str] = {}
    for name, role in named.items():
        if role in by_role:
            raise _unclear(
                root, f"both {by_role[role]}/ and {name}/ look like the split {role}", "merge or rename one"
            )
        by_role[role] = name
    if others := [name for name in names if not roles[name]]:
        raise _unclear(
            root,
            f"the folders {_shown(others)} lie beside {_shown(named)}, which look like splits",
            "move the classes into the splits, or rename what is not a split",
        )
    if "train" not in by_role:
        raise _unclear(
            root, f"{_shown(named)} look like splits, but none is train", "add or rename the folder"
        )
    return {split: root / by_role[split] for split in ("train", "val", "test") if split in by_role}


def _refuse_equal_subfolders(root: Path, names: Sequence[str], walk: _Walk) -> None:
    """Folders that all hold the same folders are splits of some kind, not classes."""
    inside = [{_key(name) for name in walk.folders(root / name)} for name in names]
    if len(names) > 1 and inside[0] and all(each == inside[0] for each in inside):
        raise _unclear(
            root,
            f"all of {_shown(names)} contain the same folders ({_shown(walk.folders(root / names[0]))}), so they"
            " look like splits",
            "name them train, val and test, or flatten the folders in each class",
        )


def _unclear(root: Path, what: str, remedy: str) -> UserError:
    return UserError(f"data.root is {root}, where {what}; {remedy} (expected layout: {LAYOUT})")


def _classes(folder: Path, walk: _Walk) -> list[str]:
    """The names of the classes, in Unicode form NFC."""
    names = walk.folders(folder)
    seen: dict[str, str] = {}
    for name in names:
        if (twin := seen.setdefault(_key(name), name)) != name:
            raise UserError(
                f"{folder}: the class folders {twin!r} and {name!r} differ only in case or Unicode form; merge them or"
                " rename one"
            )
    if len(names) < 2:
        hint = ""
        if len(names) == 1 and len(walk.folders(folder / names[0])) > 1:
            hint = f"; if the classes are in {folder / names[0]}, make that data.root"
        raise UserError(
            f"{folder} has {len(names)} class folders; a classifier needs two or more{hint}"
            f" (expected layout: {LAYOUT})"
        )
    return sorted(unicodedata.normalize("NFC", name) for name in names)


def _of_split(
    folder: Path, folders: Mapping[str, str], classes: Sequence[str], walk: _Walk, split: str
) -> list[Labelled]:
    """The labelled pictures of one split: in folders of classes or, outside train, flat with a list of labels."""
    names = walk.folders(folder)
    if split != "train" and not names:
        pictures = walk.pictures_in(folder)
        if not pictures:
            return []
        labels, used = lists.labels_of(folder, pictures, classes, split)
        walk.as_list(used)
        return sorted(zip(pictures, labels, strict=True))
    found: list[Labelled] = []
    seen: dict[str, str] = {}
    for name in names:
        if _key(name) not in folders:
            raise UserError(
                f"{folder / name}: class {name!r} is not among the training classes; remove its folder"
            )
        if (twin := seen.setdefault(_key(name), name)) != name:
            raise UserError(
                f"{folder}: the class folders {twin!r} and {name!r} are the same class; merge them"
            )
        label = classes.index(folders[_key(name)])
        found += [(path, label) for path in walk.pictures_below(folder / name)]
    return sorted(found, key=lambda each: (each[1], each[0]))


class _Walk:
    """Looks at every entry below a folder once, and keeps count of what is not used."""

    def __init__(self, root: Path):
        self.root = root
        self.left_out: Counter[str] = Counter()
        self.unwatched: list[Path] = []
        self._listed: dict[Path, list[os.DirEntry[str]]] = {}
        self._lists: set[Path] = set()

    def folders(self, folder: Path) -> list[str]:
        """The names of the folders in a folder that are neither hidden nor made by tools."""
        return [
            entry.name
            for entry in self._entries(folder)
            if self._is_folder(entry) and not _ignored(entry.name)
        ]

    def pictures_in(self, folder: Path) -> list[Path]:
        """The pictures that lie directly in a folder."""
        return [
            Path(entry.path)
            for entry in self._entries(folder)
            if not self._is_folder(entry) and self._reason(entry) is None
        ]

    def pictures_below(self, folder: Path) -> Iterator[Path]:
        """The pictures in a folder and its folders; all else there is counted."""
        for entry in self._entries(folder):
            if not self._is_folder(entry):
                if reason := self._reason(entry):
                    self.left_out[reason] += 1
                else:
                    yield Path(entry.path)
            elif _ignored(entry.name):
                self._leave_out(Path(entry.path))
            else:
                yield from self.pictures_below(Path(entry.path))

    def as_list(self, path: Path) -> None:
        """Marks a file as the list of a split's labels, which is used though no picture."""
        self._lists.add(path)

    def count_outside(self, splits: Collection[Path]) -> None:
        """Counts what lies outside of classes, and what is hidden beside them."""
        for folder in {self.root, *splits}:
            flat = folder != self.root and not self.folders(folder)
            for entry in self._entries(folder):
                if self._is_folder(entry):
                    if _ignored(entry.name):
                        self._leave_out(Path(entry.path))
                elif Path(entry.path) not in self._lists:
                    reason = self._reason(entry)
                    if reason or not flat:
                        self.left_out[reason or "outside the class folders"] += 1

    def refuse_unwatched(self) -> None:
        watched.refuse({watched.FOLDERS: self.unwatched})

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        if folder not in self._listed:
            try:
                with os.scandir(folder) as entries:
                    self._listed[folder] = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                raise passing(error, folder) or UserError(
                    f"{folder} cannot be read ({error.strerror}); make the folder readable or remove it"
                ) from None
        return self._listed[folder]

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        if entry.is_symlink() and entry.is_dir():
            if Path(entry.path) not in self.unwatched:
                self.unwatched.append(Path(entry.path))
            return False
        return entry.is_dir()

    def _reason(self, entry: os.DirEntry[str]) -> str | None:
        """Why an entry that is no folder is not used, or None for a picture."""
        if _ignored(entry.name):
            return "hidden or made by tools"
        if entry.is_symlink() and not Path(entry.path).exists():
            return watched.BROKEN
        if not entry.is_file():
            return watched.FOLDERS if entry.is_dir() else watched.SPECIAL
        suffix = Path(entry.name).suffix.lower()
        if suffix in SUFFIXES:
            return None
        return suffix or "without a suffix"

    def _leave_out(self, folder: Path) -> None:
        """Counts all files below a folder that is hidden or made by tools."""
        for entry in self._entries(folder):
            if entry.is_dir(follow_symlinks=False):
                self._leave_out(Path(entry.path))
            else:
                self.left_out["in hidden or tool-made folders"] += 1


def _ignored(name: str) -> bool:
    return name.startswith((".", "~$")) or name.casefold() in _TOOLS


def _shown(names: Sequence[str] | Mapping[str, object]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(f"{name}/" for name in listed[:_SHOWN]) + more
