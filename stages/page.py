"""What the pages of all tasks have in common: how templates are rendered, and numbers as people read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def environment(beside: str) -> jinja2.Environment:
    """Templates in the folder of a file; what is missing is an error, and everything is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(beside).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "number": number}
    return made


def percent(share: float | None, digits: int = 1) -> str:
    return "none" if share is None else f"{100 * share:.{digits}f}%"


def number(value: Any) -> str:
    """Whole numbers with separators, others with four significant digits, everything else as it is."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
