"""The test windows of series, and one way to evaluate forecasts of them, whatever makes the forecasts.

MASE of a window (Hyndman and Koehler 2006): the mean over targets and steps of |error| / scale, where the scale is what
the seasonal naive forecast is wrong by on the series' training part. sMAPE (M4): the mean of 200 |error| / (|truth| +
|forecast|), in percent, where 0 / 0 is 0.

Axes: N windows, L look-back, V variables, h horizon, K targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.sequences.data import SCALES, VALUES, SequenceCard, cases_sha256, read_array, read_windows

FOUND, NAIVE = "found", "seasonal naive"
_BATCH = 256  # windows per call

# Windows (N, L, V) float32 -> forecasts (N, h, K) float32, both in the user's units.
Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class TestWindows:
    """The windows on which every network is tested."""

    values: NDArray[np.float32]  # (rows, V), memory-mapped
    origins: NDArray[np.int64]  # (N,)
    series: NDArray[np.int64]  # (N,)
    scales_NK: NDArray[np.float64]
    card: SequenceCard

    def __len__(self) -> int:
        return len(self.origins)

    def inputs(self, start: int = 0, end: int | None = None) -> NDArray[np.float32]:
        """The look-backs (N, L, V) of some windows."""
        rows = self.origins[start:end, None] + np.arange(self.card.lookback)
        return np.asarray(self.values[rows], dtype=np.float32)

    def truth(self) -> NDArray[np.float32]:
        """What is to be forecast (N, h, K)."""
        return self._targets(self.card.lookback + np.arange(self.card.horizon))

    def seasonal_naive(self) -> NDArray[np.float32]:
        """The forecasts (N, h, K) that repeat the last season before the forecast."""
        season = self.card.season
        return self._targets(self.card.lookback - season + np.arange(self.card.horizon) % season)

    def _targets(self, steps: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = self.origins[:, None] + steps
        return np.asarray(self.values[rows, :][..., : len(self.card.targets)], dtype=np.float32)


def read_test_windows(card: SequenceCard) -> TestWindows:
    """The test split that prepare has written. Raises UserError when a file is missing or damaged."""
    origins, series = read_windows("test")
    return TestWindows(read_array(VALUES), origins, series, read_array(SCALES)[series], card)


def in_batches(answer: Answer, test: TestWindows, batch_size: int = _BATCH, most: int | None = None) -> NDArray[np.float32]:  # fmt: skip
    """The forecasts (N, h, K) of the windows, or of the first ``most``."""
    count = len(test) if most is None else min(most, len(test))
    return np.concatenate(
        [answer(test.inputs(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    )


def evaluation_of(
    forecasts: NDArray[np.float32],
    test: TestWindows,
    others: Mapping[str, tuple[NDArray[np.float32], int]] | None = None,
    **costs: float,
) -> Evaluation:
    """Evaluates forecasts (N, h, K), beside those of other networks with their parameters, and of the seasonal naive rule.

    ``details``: ``forecasts`` and ``truth`` (N, h, K); ``series`` (N,); ``by_target`` (N, K), the MASE; and for the found
    network and each other NAME, ``mase.NAME`` (N,), ``smape.NAME`` (N,), ``mae.NAME`` (h, K) in the user's units, and
    ``parameters.NAME`` (1,).
    """
    truth = test.truth()
    every = {FOUND: (forecasts, int(costs.get("params", 0))), **(others or {}), NAIVE: (test.seasonal_naive(), 0)}  # fmt: skip
    details: dict[str, NDArray[Any]] = {
        "forecasts": forecasts,
        "truth": truth,
        "series": test.series,
        "by_target": scaled(forecasts, truth, test).mean(axis=1),
    }
    for name, (some, parameters) in every.items():
        details |= {
            f"mase.{name}": scaled(some, truth, test).mean(axis=(1, 2)),
            f"smape.{name}": smape(some, truth).mean(axis=(1, 2)),
            f"mae.{name}": errors(some, truth).mean(axis=0),
            f"parameters.{name}": np.array([parameters]),
        }
    per_case = details[f"mase.{FOUND}"]
    return Evaluation(float(per_case.mean()), per_case, cases_sha256(test.card), costs, details)


def errors(forecasts: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Absolute errors (N, h, K)."""
    return np.abs(forecasts.astype(np.float64) - truth)


def scaled(
    forecasts: NDArray[np.float32], truth: NDArray[np.float32], test: TestWindows
) -> NDArray[np.float64]:
    """Absolute errors (N, h, K) in units of MASE."""
    return errors(forecasts, truth) / test.scales_NK[:, None]


def smape(forecasts: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """The symmetric percentage errors (N, h, K), from 0 to 200."""
    sizes = np.abs(forecasts.astype(np.float64)) + np.abs(truth.astype(np.float64))
    return 200 * errors(forecasts, truth) / np.where(sizes > 0, sizes, 1.0)


def by_series_or_target(evaluation: Evaluation, card: SequenceCard) -> dict[str, float | None] | None:
    """The MASE of each series or, if there is one, of each target; None if there is one of both."""
    if len(card.series) > 1:
        numbers, count = evaluation.details["series"], len(card.series)
        sums = np.bincount(numbers, weights=evaluation.per_case, minlength=count)
        windows = np.bincount(numbers, minlength=count)
        return {
            name: float(total / cases) if cases else None
            for name, total, cases in zip(card.series, sums, windows, strict=True)
        }
    if len(card.targets) > 1:
        means = evaluation.details["by_target"].mean(axis=0)
        return dict(zip(card.targets, means.tolist(), strict=True))
    return None


def by_step(evaluation: Evaluation, card: SequenceCard) -> list[dict[str, Any]]:
    """Rows with the mean absolute error of each network, in the target's units, per step of the horizon and target."""
    named = {name.removeprefix("mae."): values for name, values in sorted(evaluation.details.items()) if name.startswith("mae.")}  # fmt: skip
    return [
        {
            "step": step + 1,
            "target": target,
            **{name: float(values[step, number]) for name, values in named.items()},
        }
        for number, target in enumerate(card.targets)
        for step in range(card.horizon)
    ]
