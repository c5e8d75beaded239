"""Reads and writes artifacts. A new artifact replaces the old one only when it is complete."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.errors import UserError, passing
from stages.plumbing.runtime import STATE

ARTIFACTS = Path("artifacts")
DATA = ARTIFACTS / "data"
LATENCY = ARTIFACTS / "latency"
SEARCH = ARTIFACTS / "search"
GENOTYPE = ARTIFACTS / "genotype"
RETRAIN = ARTIFACTS / "retrain"
EXPORT = ARTIFACTS / "export"
LATENCY_JSON = LATENCY / "latency.json"
PREDICTOR = LATENCY / "predictor.safetensors"
ALPHAS = SEARCH / "alphas.safetensors"
GENOTYPE_JSON = GENOTYPE / "genotype.json"
FOUND_LATENCY = GENOTYPE / "latency.json"
EVALUATION = EXPORT / "evaluation.safetensors"
KNOWN = EXPORT / "known.json"  # for the server; a task may do without
SEARCH_RESULTS = [SEARCH / name for name in ("alphas.safetensors", "history.csv", "summary.json")]
LANDSCAPE = SEARCH / "landscape.csv"
CANDIDATE = ARTIFACTS / "candidate.json"
REGISTRY = ARTIFACTS / "registry.json"
CARD = ARTIFACTS / "model_card.md"
REPORT = ARTIFACTS / "report.html"


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which replaces ``folder`` when the block ends without an error."""
    new, old = STATE / f"new-{folder.name}", STATE / f"old-{folder.name}"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes readable JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """Writes a text file, atomically."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(content, encoding="utf-8")
    os.replace(new, path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads an artifact. Raises UserError when the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro`") from None


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes rows with the same keys as CSV; None becomes an empty field. No rows need ``columns``."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, float | None]]:
    """Reads a CSV of numbers; an empty field becomes None. Raises UserError when the file is missing."""
    try:
        with path.open(newline="") as file:
            return [
                {key: float(text) if text else None for key, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None


def read_table(path: Path, setting: str) -> list[dict[str, str]]:
    """The rows of the user's .csv or .csv.gz file. Raises UserError when the file cannot be read."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        machines = passing(error, path) if isinstance(error, OSError) else None
        raise machines or UserError(
            f"{setting} is {path}, which cannot be read ({error}); correct or remove the setting"
        ) from None


def sha256_of(*paths: Path) -> str:
    """One hash of the names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The hash of a file's content alone, as ``sha256sum`` prints it: anybody can check it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
