"""Measures how long one call takes, at the batch sizes that export.json lists."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stages.images.testing.cases import Answer

BATCH_SIZES = (1, 64)  # images per call in latency measurements
_WARM_UP = 3  # calls


def latencies(
    answers: Mapping[str, Answer],
    images: NDArray[np.uint8],
    repeats: int,
    sizes: Sequence[int] = BATCH_SIZES,
) -> dict[str, dict[str, float]]:
    """Name -> ``batch_N`` -> median milliseconds per call.

    The calls of the names alternate, so that all of them run under the same load of the machine.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in answers}
    for size in sizes:
        batch = np.resize(images[:size], (size, *images.shape[1:]))
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
