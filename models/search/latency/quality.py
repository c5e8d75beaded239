"""How good predictions of latency are: errors in relation to what was measured, and rank correlations.

Axes: N architectures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 1024  # rows of the table of all pairs that are compared at a time


@dataclass(frozen=True)
class Quality:
    """What predictions are judged by.

    ``mean_relative_error`` and ``within_10_percent`` (a share from 0 to 1) relate errors to what was measured; the
    rank correlations are from -1 to 1, and 0 where one side is constant.
    """

    mean_relative_error: float
    within_10_percent: float
    spearman: float
    kendall_tau: float


def quality(predicted_N: Tensor, measured_N: Tensor) -> Quality:
    """The quality of predictions in ms."""
    predicted_N, measured_N = predicted_N.double(), measured_N.double()
    error_N = ((predicted_N - measured_N) / measured_N).abs()
    return Quality(
        float(error_N.mean()),
        float((error_N <= 0.1).double().mean()),
        spearman(predicted_N, measured_N),
        kendall_tau(predicted_N, measured_N),
    )


def spearman(one_N: Tensor, other_N: Tensor) -> float:
    """Spearman's correlation: Pearson's of the ranks. Equal values share the mean of their ranks."""
    ranks = torch.stack([_ranks(one_N), _ranks(other_N)])
    centered = ranks - ranks.mean(dim=1, keepdim=True)
    return _ratio((centered[0] * centered[1]).sum(), centered.square().sum(dim=1).prod())


def kendall_tau(one_N: Tensor, other_N: Tensor) -> float:
    """Kendall's tau-b: concordant less discordant pairs, in relation to the pairs without ties."""
    concordance = one_N.new_zeros((), dtype=torch.float64)
    untied = one_N.new_zeros(2, dtype=torch.float64)
    for start in range(0, len(one_N), _BLOCK):
        signs = [torch.sign(x_N[start : start + _BLOCK, None] - x_N) for x_N in (one_N, other_N)]
        concordance += (signs[0] * signs[1]).sum(dtype=torch.float64)
        untied += torch.stack([sign.abs().sum(dtype=torch.float64) for sign in signs])
    return _ratio(concordance, untied.prod())


def _ranks(values_N: Tensor) -> Tensor:
    _, places_N, counts = torch.unique(values_N, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[places_N]


def _ratio(product: Tensor, squares: Tensor) -> float:
    return float(product / squares.sqrt()) if squares > 0 else 0.0
