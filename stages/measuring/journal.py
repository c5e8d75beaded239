"""The measurements so far: one line of JSON for each, so that an interrupted stage repeats none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.measuring.bench import BLOCK

Times = tuple[float, float]  # median and spread in ms


class Journal:
    """A file to which measurements are added, and what it holds already."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[tuple[str, int], Times] = {}
        text = path.read_bytes().decode() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the process was killed while it wrote a line
            path.write_bytes(whole.encode())
        for line in whole.splitlines():
            entry = json.loads(line)
            self.found[entry["name"], entry["turn"]] = entry["ms"], entry["ms_spread"]

    def add(self, measured: Mapping[str, Times], turn: int) -> None:
        """Adds measurements: name -> times. They are on the disk when the call returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for name, (ms, spread) in measured.items():
                line = {"name": name, "turn": turn, "ms": ms, "ms_spread": spread}
                file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.found |= {(name, turn): times for name, times in measured.items()}


def measured_by(
    journal: Journal,
    names: Mapping[str, Any],
    measure: Callable[[Sequence[Any]], Sequence[Times]],
    count: Callable[[int], None],
    turn: int = 1,
) -> list[Times]:
    """The times of some architectures (name -> architecture), of which those are measured that the journal lacks.

    ``measure`` gets a few at a time. ``count`` is told how many measurements the journal holds.
    """
    missing = [name for name in names if (name, turn) not in journal.found]
    count(len(journal.found))
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        times = measure([names[name] for name in block])
        journal.add(dict(zip(block, times, strict=True)), turn)
        count(len(journal.found))
    return [journal.found[name, turn] for name in names]
