"""What the report pages of all tasks share: the template environment, and how numbers are written."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jinja2

_PACKAGES = ("torch", "torchvision", "numpy", "onnx", "onnxruntime", "mlflow", "dvc")


def environment(beside: str) -> jinja2.Environment:
    """Templates in the folder of ``file``. Undefined names are errors, and all values are escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(beside).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "number": number, "size": size}
    return made


def percent(share: float | None, digits: int = 1) -> str:
    return "none" if share is None else f"{100 * share:.{digits}f}%"


def size(count: int) -> str:
    """A file's size: megabytes or, of a small file, bytes."""
    return f"{count / 1e6:.2f} MB" if count >= 1e4 else f"{count:,} bytes"


def number(value: Any) -> str:
    """Integers get thousands separators, floats four significant digits; other values stay as they are."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def versions(others: Collection[str] = ()) -> dict[str, str]:
    """The versions that a page names: of Python and of the packages that a run is made with, ``others`` among them."""
    packages = {package: importlib.metadata.version(package) for package in (*_PACKAGES, *others)}
    return {"Python": platform.python_version(), **packages}
