"""The growth of a search on a time line: when nodes, width and operations changed, and how the validation loss went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.training.events import Row
from stages.pictures import INK, File

_SIZES = {"nodes": "nodes", "hidden": "units", "operations": "operations"}  # column of the history -> word
_LINE = "#c05621"  # of the validation loss, as in the other panels


@dataclass(frozen=True)
class Change:
    """What was different in ``epoch``, counted from 1, from the epoch before, and the validation loss of both."""

    epoch: int
    words: str
    before: float
    after: float


def changes(history: Sequence[Row]) -> list[Change]:
    """The epochs that began with another structure; none if the search did not grow."""
    found = []
    for before, now in pairwise(history):
        different = [
            f"{before[column] or 0:.0f} to {now[column] or 0:.0f} {word}"
            for column, word in _SIZES.items()
            if column in now and before[column] != now[column]
        ]
        if different:
            words = ", ".join(different)
            found.append(
                Change(int(now["epoch"] or 0), words, before["valid_loss"] or 0.0, now["valid_loss"] or 0.0)
            )
    return found


def draw(file: File, history: Sequence[Row], chosen: int) -> None:
    """Draws the validation loss over the epochs as wide as a phone, with a line and the sizes where each structure begins.

    ``chosen`` is the epoch of the result, which a dotted line marks.
    """
    figure = Figure(figsize=(3.5, 2.9), layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] or 0 for row in history]
    axes.plot(epochs, [row["valid_loss"] or 0.0 for row in history], color=_LINE, marker=".")
    for epoch, row in [
        (1, history[0]),
        *((each.epoch, history[each.epoch - 1]) for each in changes(history)),
    ]:
        sizes = [f"{row[column] or 0:.0f} {word}" for column, word in _SIZES.items() if column in row]
        if epoch > 1:
            axes.axvline(epoch - 0.5, color=INK, linewidth=0.8)
        axes.annotate(
            ", ".join(sizes),
            (epoch - 0.5, 1.0),
            (2, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7,
            rotation=90,  # so that there is room for many structures
            va="top",
        )
    axes.axvline(chosen, color=INK, linewidth=0.8, linestyle=":")
    axes.set_title("validation loss while the cell grows", fontsize=9)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_xlim(0.5, len(history) + 0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.grid(alpha=0.3)
    figure.savefig(file)
