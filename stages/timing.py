"""Measures how long answers take, at the batch sizes that export.json lists."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BATCH_SIZES = (1, 64)  # cases per call
_WARM_UP = 3  # calls


def latencies(
    answers: Mapping[str, Callable[[Any], object]],
    batch_of: Callable[[int], Any],
    repeats: int,
    sizes: Sequence[int] = BATCH_SIZES,
) -> dict[str, dict[str, float]]:
    """Name -> ``batch_N`` -> median milliseconds per call on ``batch_of(N)``.

    The calls of the names alternate, so that all of them run under the same load of the machine.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in answers}
    for size in sizes:
        batch = batch_of(size)
        times: dict[str, list[float]] = {name: [] for name in answers}
        for repeat in range(repeats + _WARM_UP):
            for name, answer in answers.items():
                started = time.perf_counter()
                answer(batch)
                if repeat >= _WARM_UP:
                    times[name].append(1e3 * (time.perf_counter() - started))
        for name, taken in times.items():
            found[name][f"batch_{size}"] = statistics.median(taken)
    return found
