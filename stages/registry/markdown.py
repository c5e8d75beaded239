"""Markdown that holds together whatever the names in it are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. The cells are Markdown already; names from outside go through ``plain`` first."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(text: str) -> str:
    """A name from outside, on one line and without the signs that Markdown would take for markup."""
    escaped = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|`*_<>[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped or "(empty)"
