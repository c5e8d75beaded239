"""Measures how long one call takes on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stages import timing
from stages.images.testing.cases import Answer


def latencies(
    answers: Mapping[str, Answer],
    images: NDArray[np.uint8],
    repeats: int,
    sizes: Sequence[int] = timing.BATCH_SIZES,
) -> dict[str, dict[str, float]]:
    """Name -> ``batch_N`` -> median milliseconds per call, with as many images as are needed, repeated if necessary."""

    def batch(size: int) -> NDArray[np.uint8]:
        return np.resize(images[:size], (size, *images.shape[1:]))

    return timing.latencies(answers, batch, repeats, sizes)
