"""The found network beside those it is compared with, on the same test cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.sequences.data import SequenceCard, metric_of
from stages.sequences.testing.series import FOUND, NAIVE

NAMES = {FOUND: "found network", "lstm": "LSTM", "dlinear": "DLinear", NAIVE: "seasonal naive"}
_RESAMPLES, _SEED = 1000, 0


@dataclass(frozen=True)
class Row:
    """One network on the test cases. Lower scores are better, so a positive difference means that the found one is better.

    ``low`` and ``high`` bound the difference with 95%, if cases are independent of each other.
    """

    name: str
    score: float
    smape: float | None
    mae: float | None
    parameters: int
    difference: float | None = None  # this network's score less that of the found one
    low: float | None = None
    high: float | None = None
    metric: str = "mase"

    def for_csv(self) -> dict[str, Any]:
        """The row with the metric's name for its column."""
        row = {"network": self.name, self.metric: self.score, "smape": self.smape, "mae": self.mae}
        row |= {"parameters": self.parameters, "difference": self.difference}
        return {**row, "low": self.low, "high": self.high}


def compared(evaluation: Evaluation, card: SequenceCard) -> Sequence[Row]:
    """The found network first, then the others by their scores.

    ``mae`` is in the user's units and left out where there are several targets, which have units of their own.
    """
    metric, details = metric_of(card).name, evaluation.details
    ours = details[f"{metric}.{FOUND}"]
    rows = []
    for name in names(evaluation, card):
        values = details[f"{metric}.{name}"]
        smape, mae = details.get(f"smape.{name}"), details.get(f"mae.{name}")
        alone = mae is not None and mae.shape[1] == 1
        between: dict[str, float] = {}
        if name != FOUND:
            low, high = interval(values - ours)
            between = {"difference": float((values - ours).mean()), "low": low, "high": high}
        rows.append(
            Row(
                name=NAMES.get(name, name),
                score=float(values.mean()),
                smape=None if smape is None else float(smape.mean()),
                mae=float(mae.mean()) if mae is not None and alone else None,
                parameters=int(details[f"parameters.{name}"][0]),
                metric=metric,
                **between,
            )
        )
    return rows[:1] + sorted(rows[1:], key=lambda row: row.score)


def names(evaluation: Evaluation, card: SequenceCard) -> list[str]:
    """What the evaluation has values of, the found network first."""
    prefix = f"{metric_of(card).name}."
    every = [name.removeprefix(prefix) for name in evaluation.details if name.startswith(prefix)]
    return [FOUND, *sorted(name for name in every if name != FOUND)]


def worse_than(evaluation: Evaluation, card: SequenceCard) -> str | None:
    """A line about the best of what is better than the found network; None if nothing is."""
    metric = metric_of(card)
    own, *others = compared(evaluation, card)
    better = [row for row in others if row.difference is not None and row.difference < 0]
    if not better:
        return None
    best = better[0]
    assert best.difference is not None and best.low is not None and best.high is not None
    sure = "" if best.high < 0 else ", which may be chance"
    label = metric.name.upper() if metric.name == "mase" else metric.words
    more = f"; {len(better)} of the {len(others)} it is compared with are better" if len(better) > 1 else ""
    return (
        f"the found network is worse than {best.name}: {label} {metric.text(own.score)} instead of"
        f" {metric.text(best.score)} (difference {-best.difference:.3g}, 95% interval {-best.high:.3g} to"
        f" {-best.low:.3g}{sure}){more}"
    )


def interval(differences_N: NDArray[np.float64]) -> tuple[float, float]:
    """The 95% interval of the mean by the bootstrap (Efron 1979), which draws cases with replacement."""
    source, count = np.random.default_rng(_SEED), len(differences_N)
    means = [differences_N[source.integers(count, size=count)].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
