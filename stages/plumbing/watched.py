"""Refuses what DVC cannot watch below ``data.root``, before DVC is started.

DVC hashes ``data.root`` before it runs the stage prepare. It waits for ever at a named pipe, and stops at a socket or a
broken link without saying whose it is. It does not look behind a link to a folder: what changes there changes nothing for
DVC. So whatever starts DVC looks here first. Files are only listed, never opened: 100,000 take a tenth of a second, and
100,000 links to files one second.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stages.errors import UserError
from stages.params import DataParams

FOLDERS, BROKEN, SPECIAL = "links to folders", "broken links", "pipes, sockets or devices"
_RULES = {  # what DVC does with each, and how to mend it
    FOLDERS: ("DVC does not notice changes behind such links", "put the folders themselves there"),
    BROKEN: ("DVC stops at such links", "repair or remove them"),
    SPECIAL: ("DVC waits for ever at a pipe and stops at the others", "remove them"),
}
_SHOWN = 3  # paths in a message
_NOT_HASHED = {".git", ".hg", ".dvc"}  # folders that DVC ignores, within the project only


def check(data: DataParams) -> None:
    """Raises UserError when DVC could not read ``data.root`` or would not notice changes there.

    Links to folders matter only where prepare reads folders below ``data.root``. A ``data.root`` that is missing, or
    folders that cannot be read, are left to DVC and prepare.
    """
    root = Path(data.root)
    kind = _kind(data.root) if os.path.lexists(root) else None
    if kind in (BROKEN, SPECIAL):
        what = {BROKEN: "a broken link", SPECIAL: "a pipe, a socket or a device"}[kind]
        raise UserError(f"data.root is {root}, which is {what}; correct data.root or remove it")
    found: dict[str, list[Path]] = {}
    if root.is_dir():
        for path, kind in _unusual(root):
            if kind != FOLDERS or (data.reads_folders() and not _hidden(path.relative_to(root))):
                found.setdefault(kind, []).append(path)
    refuse(found)


def refuse(found: Mapping[str, Sequence[Path]]) -> None:
    """Raises UserError when there are paths of any of the kinds FOLDERS, BROKEN and SPECIAL; the message names some."""
    parts = []
    for kind, (reason, mend) in _RULES.items():
        if paths := sorted(found.get(kind, ())):
            shown = ", ".join(map(str, paths[:_SHOWN]))
            more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
            parts.append(f"data.root contains {kind} ({shown}{more}), and {reason}; {mend}")
    if parts:
        raise UserError("; ".join(parts))


def _unusual(root: Path) -> Iterator[tuple[Path, str]]:
    """All below a folder that is neither a file, a folder, nor a link to a file. Only links are looked up on the disk."""
    in_project = Path(os.path.abspath(root)).is_relative_to(Path.cwd())
    waiting = [str(root)]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except OSError:  # DVC skips a folder that it cannot read, and prepare names it
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not (in_project and entry.name in _NOT_HASHED):
                        waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False) and (kind := _kind(entry.path)):
                    yield Path(entry.path), kind


def _kind(path: str) -> str | None:
    """What an entry is for DVC; None: a file, a folder, or a link to a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # the link leads nowhere, in a circle, or where this user may not go
        return BROKEN
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return FOLDERS if os.path.islink(path) else None
    return SPECIAL


def _hidden(path: Path) -> bool:
    """Whether a path leads through a hidden folder, whose content prepare leaves out."""
    return any(part.startswith(".") for part in path.parts[:-1])
