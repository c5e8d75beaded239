"""The loss around the architecture, as a map."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from models.search.landscape import Landscape
from stages.pictures import PAPER, File


def landscape(file: File, found: Landscape) -> None:
    """Draws the loss around alpha as a map, as wide as a phone."""
    figure = Figure(figsize=(3.5, 2.9), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    losses = found.losses
    figure.colorbar(heights(axes, found, float(losses.min()), float(losses.max())), ax=axes)
    axes.set_title("validation loss around alpha", fontsize=9)
    figure.savefig(file)


def heights(axes: Axes, found: Landscape, low: float, high: float) -> ContourSet:
    """Draws a landscape in colours that reach from the loss ``low`` to ``high``. A cross marks alpha."""
    span = max(high - low, 1e-6)  # a flat landscape has one colour
    levels = [low + span * step / 12 for step in range(13)]
    offsets, losses = found.offsets.numpy(), found.losses.numpy()
    drawn = axes.contourf(offsets, offsets, losses.T, levels, cmap="viridis", extend="both")
    axes.plot(0, 0, marker="x", color=PAPER, markersize=6)
    axes.set_xlabel("first random direction", fontsize=9)
    axes.set_ylabel("second random direction", fontsize=9)
    axes.set_aspect("equal")
    return drawn
