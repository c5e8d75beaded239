"""Writes known.json, which the server's page reads: the look-back of a test window to try, and what really came after it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from stages.plumbing.files import file_sha256, write_json
from stages.sequences.data import TIMES, SequenceCard, read_array
from stages.sequences.testing.series import read_test_windows

_DIGITS = 7  # of a number, as many as float32 has
_MOST = 20_000  # numbers, so that the file stays below the megabyte that the server reads


def write_known(path: Path, model: Path, card: SequenceCard) -> None:
    """Writes the file for the middle one of the test windows; nothing where its look-back is too long to try."""
    if card.lookback * (len(card.variables) + 1) + card.horizon * len(card.targets) > _MOST:
        return
    test = read_test_windows(card)
    middle = len(test) // 2
    seen_LV, came_hK = test.inputs(middle, middle + 1)[0], test.truth()[middle]
    first = test.origins[middle]
    content = {
        "model_sha256": file_sha256(model),
        "example": {
            "time": [
                moment(second, card.zone)
                for second in read_array(TIMES)[first : first + card.lookback].tolist()
            ],
            "columns": _columns(card.variables, seen_LV),
        },
        "truth": _columns(list(card.targets), came_hK),
    }
    write_json(path, content)


def moment(second: int, zone: str | None) -> str:
    """A time in ISO 8601: in the zone with its offset, or in UTC without one."""
    if zone is None:
        return datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat()
    return datetime.fromtimestamp(second, ZoneInfo(zone)).isoformat()


def _columns(names: list[str], values: NDArray[Any]) -> dict[str, list[float]]:
    rounded = [
        [float(f"{value:.{_DIGITS}g}") for value in column] for column in np.asarray(values).T.tolist()
    ]
    return dict(zip(names, rounded, strict=True))
