"""The reliability diagram: how often the network is right, by how sure it is (DeGroot and Fienberg 1983)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.images.testing.classification import Calibration
from stages.intervals import wilson
from stages.pictures import COLOURS, INK, File

_DOT = 140  # area in square points of a dot with all images
_LEAST = 12  # of one with few


def reliability(file: File, found: Calibration) -> None:
    """Draws accuracy against confidence, as wide as a phone: a dot for each bin that has images."""
    figure = Figure(figsize=(3.5, 3.1), layout="constrained")
    axes = figure.add_subplot()
    colour, images = COLOURS["sep_conv_3x3"], sum(count for _, _, count in found.bins)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for sure, share, count in found.bins:
        low, high = wilson(round(share * count), count)
        axes.plot([sure, sure], [low, high], color=colour, linewidth=1)
        axes.plot(
            sure, share, "o", markersize=(_LEAST + _DOT * count / images) ** 0.5, color=colour, zorder=3
        )
    axes.set_title("right answers by confidence", fontsize=9)
    axes.set_xlabel("confidence", fontsize=9)
    axes.set_ylabel("right answers", fontsize=9)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    figure.savefig(file)
