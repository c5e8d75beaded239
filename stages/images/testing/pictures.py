"""The confusion matrix as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from stages.pictures import INK, PAPER, File


def draw_confusion(file: File, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Draws counts (actual, predicted): the shade is the share of the actual class; counts are printed if they fit."""
    size = min(max(0.42 * len(classes) + 2, 4.5), 16)
    figure = Figure(figsize=(size + 0.8, size), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the actual class", format=PercentFormatter(1.0), shrink=0.8)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.set_yticks(ticks, classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    if len(classes) <= 25:
        for actual in ticks:
            for predicted in ticks:
                if count := int(counts[actual, predicted]):
                    dark = shares[actual, predicted] > 0.5
                    axes.text(predicted, actual, str(count), ha="center", va="center", fontsize=8, color=PAPER if dark else INK)  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # class names in scripts that the font lacks
        figure.savefig(file)
