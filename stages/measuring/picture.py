"""The picture of a latency predictor: predicted against measured, on architectures that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from stages.latencies import LatencyRecord
from stages.pictures import INK, File

_POINTS, _BAND = "#2b6cb0", "#cbd5e0"
_NEAR = 0.1  # the relative error that the band shows


def draw(file: File, predicted: Sequence[float], measured: Sequence[float], record: LatencyRecord) -> None:
    """One point per held-out architecture, in ms. The band is 10% to either side."""
    figure = Figure(figsize=(5.0, 4.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    ends = [0.9 * min(*predicted, *measured), 1.1 * max(*predicted, *measured)]
    low, high = [(1 - _NEAR) * end for end in ends], [(1 + _NEAR) * end for end in ends]
    axes.fill_between(ends, low, high, color=_BAND, alpha=0.5, label="within 10%")
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.scatter(measured, predicted, s=12, color=_POINTS, alpha=0.7, label="held-out architectures")
    threads = f"{record.threads or '?'} thread{'s' if record.threads != 1 else ''}"
    axes.set_xlabel(f"measured ms, {threads}, batch {record.batch_size}")
    axes.set_ylabel("predicted ms")
    axes.set_title(
        f"mean error {100 * (record.mean_relative_error or 0):.1f}%, Spearman {record.spearman:.3f}",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(file)
