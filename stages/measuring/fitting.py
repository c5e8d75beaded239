"""Fits the predictor to a table and tests it on what it has not seen, beside two simpler ones.

Axes: N architectures, D columns of a code, K predictors of other devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.search.discretize import one_hot
from models.search.genotype import Genotype
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import Predictor, fit
from models.search.latency.quality import quality
from stages.latencies import Measurement, Qualities

_MACS = 200  # architectures through whose multiply-accumulates the line is drawn


@dataclass(frozen=True)
class Assessment:
    """A fitted predictor, and how good it and the two simpler ones are on the held-out architectures."""

    predictor: Predictor
    cross_validation: Mapping[str, Qualities]  # kind -> quality
    own: Qualities
    additive: Qualities
    flops: Qualities
    predicted: list[float]  # ms of the held-out architectures
    measured: list[float]


def assess(
    rows: Sequence[Measurement],
    encoding: Encoding,
    macs: Callable[[Genotype], int],
    others: Sequence[Predictor],
    seed: int,
) -> Assessment:
    """Fits the predictor to the rows that are not held out. ``others`` are predictors of other devices."""
    fitted, tested = [row for row in rows if not row.held_out], [row for row in rows if row.held_out]
    codes_ND, ms_N = _codes(encoding, fitted), _ms(fitted)
    test_ND, measured_N = _codes(encoding, tested), _ms(tested)
    found = fit(codes_ND, ms_N, seed=seed, references=others)
    predicted_N = found.predictor(test_ND).detach()
    few = fitted[:: max(len(fitted) // _MACS, 1)][:_MACS]
    line_N = _line(_macs(macs, few), _ms(few), _macs(macs, tested))
    return Assessment(
        found.predictor,
        {kind: Qualities(**asdict(score)) for kind, score in found.scores.items()},
        _quality(predicted_N, measured_N),
        _quality(_table(encoding, fitted, tested, seed), measured_N),
        _quality(line_N, measured_N),
        predicted_N.tolist(),
        measured_N.tolist(),
    )


def spread_of(
    rows: Sequence[Measurement], encoding: Encoding, seed: int
) -> Callable[[Sequence[Genotype]], Tensor]:
    """A function that says how much the members of an ensemble, fitted to these rows, disagree about architectures."""
    predictor = fit(_codes(encoding, rows), _ms(rows), seed=seed, kinds=("ensemble",)).doubtful
    return lambda genotypes: predictor.spread(
        torch.stack([encoding.encode(genotype) for genotype in genotypes])
    )


def _table(
    encoding: Encoding, fitted: Sequence[Measurement], tested: Sequence[Measurement], seed: int
) -> Tensor:
    """What a table with the latency of every operation on every edge says, whatever the operation leads to."""

    def plain(rows: Sequence[Measurement]) -> Tensor:
        mixes = [one_hot(encoding.space, row.genotype) for row in rows]
        return torch.stack([encoding.table(mix).flatten().float() for mix in mixes])

    table = fit(plain(fitted), _ms(fitted), seed=seed, kinds=("additive",)).predictor
    return table(plain(tested)).detach()


def _codes(encoding: Encoding, rows: Sequence[Measurement]) -> Tensor:
    return encoding.encode_all([row.genotype for row in rows])


def _ms(rows: Sequence[Measurement]) -> Tensor:
    return torch.tensor([row.ms for row in rows])


def _macs(macs: Callable[[Genotype], int], rows: Sequence[Measurement]) -> Tensor:
    return torch.tensor([float(macs(row.genotype)) for row in rows])


def _line(x_N: Tensor, ms_N: Tensor, wanted_N: Tensor) -> Tensor:
    """What the straight line of least relative squares through (x, ms) has at ``wanted``; no less than 1% of the least ms."""
    design_N2 = torch.stack([torch.ones_like(x_N), x_N / x_N.max().clamp_min(1)], dim=1) / ms_N[:, None]
    solution_2 = (
        torch.linalg.lstsq(design_N2.double(), torch.ones(len(ms_N), 1).double()).solution[:, 0].float()
    )
    return (solution_2[0] + solution_2[1] * wanted_N / x_N.max().clamp_min(1)).clamp_min(
        0.01 * float(ms_N.min())
    )


def _quality(predicted_N: Tensor, measured_N: Tensor) -> Qualities:
    return Qualities(**asdict(quality(predicted_N, measured_N)))
