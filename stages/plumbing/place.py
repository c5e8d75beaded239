"""Whether the tools that keep results can work where the project lies: some characters of a path break them.

Found by trying (tests/stages/test_place.py tries the tools again). Spaces, quotes, ``#``, ``&``, ``:``, ``;`` and letters of any script do
no harm.

``python -m stages.plumbing.place`` does so for the Makefile; with a folder, before packages are installed there. It needs
nothing but Python.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.errors import UserError


def check(project: Path | None = None, packages: Path | None = None) -> None:
    """Raises UserError when the path of the project (the current folder) or of its packages cannot be used.

    ``packages``: the folder where they will be; None: where they are.
    """
    path = str(project or Path.cwd())
    if trouble := _trouble(path):
        raise UserError(f"the project is in {path!r}, {trouble}; move the project to another folder")
    where = str(packages.resolve()) if packages else _packages()
    if _in_a_database() and "%" in where:
        installed = "would be" if packages else "is"
        raise UserError(
            f"MLflow {installed} installed in {where!r}, and it cannot make its database from a path with '%'; move the"
            " project, if .venv is in it, to a path without '%', delete .venv and run `make repro`"
        )


def _trouble(path: str) -> str | None:
    """What is wrong with the path of the project."""
    if any("\ud800" <= character <= "\udfff" for character in path):
        return "a path that is not valid UTF-8, which MLflow changes"
    if found := [brace for brace in "{}" if brace in path]:
        return f"and DVC cannot work in a path with {found[0]!r}"
    if "?" in path and not os.environ.get("MLFLOW_TRACKING_URI"):
        return "and MLflow takes the part of a path after '?' for options of its database"
    if _in_a_database() and "'" in path and '"' in path:
        return "and MLflow cannot make its database in a path with both kinds of quotes"
    return None


def _in_a_database() -> bool:
    """Whether MLflow opens the database of runs in this process, as it does without a server."""
    return not os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://"))


def _packages() -> str:
    found = importlib.util.find_spec("mlflow")
    return str(Path(found.origin).parents[1]) if found and found.origin else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    folders = sys.argv[1:] if arguments is None else arguments
    try:
        check(packages=Path(folders[0]) if folders else None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
