"""How long MLflow's values may be. A longer value goes into a file, and what is kept in its place names that file.

MLflow 3.17 refuses or silently cuts longer values, and the databases under it have limits of their own: a tag of a
version holds 100,000 characters, but 65,535 bytes in MySQL. The limits here suit all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

PARAM = 6000  # characters; also of a tag of a run
VERSION_TAG = 50_000
SCHEMA = 1_000_000  # of a data set
SOURCE = 60_000  # of a data set
DATASET_NAME = 500
NAME = 250  # of a metric or a run
FOLDER = "long_values"  # of the files, among the artifacts of a run or of a version
_KEPT = 500  # characters of a long value that stay in its place


@contextlib.contextmanager
def in_file(name: str, value: str) -> Iterator[Path]:
    """The value in a file, while the block runs. The file's folder has the name that it should have in MLflow."""
    with tempfile.TemporaryDirectory(prefix="msdarts-") as temporary:
        path = Path(temporary) / file_of(name, value)
        path.parent.mkdir()
        path.write_text(value, encoding="utf-8", errors="backslashreplace")
        yield path


def file_of(name: str, value: str) -> str:
    """The path of a long value's file among the artifacts."""
    return f"{FOLDER}/{name}.{'json' if value[:1] in ('[', '{') else 'txt'}"


def beginning(name: str, value: str) -> str:
    """What stands in the place of a long value: its beginning, its length, and where all of it is."""
    return f"{value[:_KEPT]}... ({len(value):,} characters, all of them in {file_of(name, value)})"


def beginning_as_json(name: str, value: str) -> str:
    """The same where MLflow's pages expect JSON."""
    return json.dumps({"begins": value[:_KEPT], "characters": len(value), "whole": file_of(name, value)})


def short_name(name: str, most: int = NAME) -> str:
    """A name that MLflow takes; two long names that differ stay different."""
    if len(name) <= most:
        return name
    return f"{name[: most - 9]}-{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"
