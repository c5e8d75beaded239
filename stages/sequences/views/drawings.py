"""Drawings of forecasts beside the truth, and of errors over the horizon; all as wide as a phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from stages.pictures import INK, File

_FOUND, _NAIVE = "#c05621", "#64748b"
_STYLES: Mapping[str, dict[str, Any]] = {  # readable on white and on black, and without colours
    "found network": {"color": _FOUND, "linewidth": 2.0, "zorder": 5},
    "LSTM": {"color": "#3b82c4", "linewidth": 1.2, "linestyle": "-"},
    "DLinear": {"color": "#2f9e5f", "linewidth": 1.2, "linestyle": "--"},
    "seasonal naive": {"color": _NAIVE, "linewidth": 1.2, "linestyle": ":"},
}
_WIDTH, _HEIGHT = 3.5, 1.55  # inches: a phone, and one target


@dataclass(frozen=True, eq=False)
class Window:
    """One test window: L rows back, h rows ahead, K targets."""

    title: str
    past_LK: NDArray[np.float32]
    truth_hK: NDArray[np.float32]
    forecast_hK: NDArray[np.float32]
    naive_hK: NDArray[np.float32]
    targets: tuple[str, ...]


def forecast(file: File, window: Window) -> None:
    """Draws what came before, the forecast, the truth and the seasonal naive forecast, one chart per target."""
    count = len(window.targets)
    figure = Figure(figsize=(_WIDTH, _HEIGHT * count + 0.6), layout="constrained")
    all_axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    before, ahead = np.arange(1 - len(window.past_LK), 1), np.arange(len(window.truth_hK) + 1)
    for number, axes in enumerate(all_axes):
        last = window.past_LK[-1:, number]
        lines = {  # each begins at the last row that was known
            "truth": (window.truth_hK, {"color": INK, "linewidth": 1.2}),
            "seasonal naive": (window.naive_hK, {"color": _NAIVE, "linewidth": 1.0, "linestyle": ":"}),
            "forecast": (window.forecast_hK, {"color": _FOUND, "linewidth": 1.8}),
        }
        axes.plot(before, window.past_LK[:, number], color=INK, linewidth=0.9)
        for label, (values, style) in lines.items():
            axes.plot(ahead, np.concatenate([last, values[:, number]]), label=label, **style)
        axes.axvline(0, color=INK, linewidth=0.6, linestyle=":")
        axes.set_title(window.targets[number], fontsize=8, loc="left", pad=2)
        _plain(axes)
    all_axes[-1].set_xlabel("rows before and after the forecast is made", fontsize=8)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7.5, frameon=False)
    figure.savefig(file)


def horizon(file: File, target: str, errors: Mapping[str, NDArray[np.float64]], step: str) -> None:
    """Draws the mean absolute error of each network over the steps of the horizon, in the target's units."""
    figure = Figure(figsize=(_WIDTH, 2.4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in errors.items():
        steps, marker = np.arange(1, len(values) + 1), "." if len(values) < 5 else None
        axes.plot(steps, values, label=name, marker=marker, **_STYLES[name])
    axes.set_title(f"mean absolute error: {target}", fontsize=9)
    axes.set_xlabel(f"steps ahead (one {step})", fontsize=8)
    axes.set_ylim(0, 1.05 * axes.dataLim.y1 or 1)
    axes.legend(frameon=False, fontsize=7.5)
    _plain(axes)
    figure.savefig(file)


def _plain(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(labelsize=7.5)
    axes.grid(alpha=0.3)
