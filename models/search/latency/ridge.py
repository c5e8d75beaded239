"""Latency as a sum over operations, or over operations and pairs of them: ridge regression in closed form.

``additive`` is the look-up table: every operation on every edge has its milliseconds. ``pairwise`` adds those of every
two operations. The strength of the regularization is the one with the smallest leave-one-out error, and what a fit
without a fold would predict for it follows from the fit on all samples, too (Allen's PRESS statistic; Hastie,
Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10): no fit is repeated.

Axes: N samples, D columns of a code, P features, K singular values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRENGTHS = tuple(10.0 ** (step / 2) for step in range(-6, 7))  # of the regularization, tried in turn
PAIRS = (
    0.03  # of the weight of single operations that pairs have: they are many, and most of them matter little
)
MOST = 4000  # unknowns of a fit; its time grows with their cube


class Quadratic(nn.Module):
    """ms = bias + code . linear + code' pairs code / 2. A matrix of pairs without entries stands for zeros."""

    bias: Tensor
    linear: Tensor
    pairs: Tensor

    def __init__(self, bias: Tensor, linear: Tensor, pairs: Tensor | None = None):
        super().__init__()
        self.register_buffer("bias", bias.float())
        self.register_buffer("linear", linear.float())
        self.register_buffer("pairs", torch.zeros(0, 0) if pairs is None else pairs.float())

    def forward(self, codes_ND: Tensor) -> Tensor:
        ms_N = self.bias + codes_ND @ self.linear
        return (
            ms_N if self.pairs.numel() == 0 else ms_N + ((codes_ND @ self.pairs) * codes_ND).sum(dim=-1) / 2
        )


@dataclass(frozen=True)
class Spectrum:
    """The left singular vectors and squared singular values of features that are weighted and centered."""

    u_NK: Tensor
    values_K: Tensor
    shares_N: Tensor  # the weights of the samples, with a sum of 1


@dataclass(frozen=True)
class Fit:
    """A ridge regression: prediction(features) = intercept + features . (training features)' dual."""

    dual_N: Tensor
    held_out_N: Tensor  # what a fit without the fold of each sample predicts for it


def additive(
    codes_ND: Tensor, ms_N: Tensor, weights_N: Tensor, folds: Sequence[Tensor]
) -> tuple[Quadratic, Tensor]:
    """The look-up table, and its predictions (N,) for each fold without that fold."""
    x_ND, y_N = codes_ND.double(), ms_N.double()
    fit = ridge(spectrum(x_ND, weights_N), y_N, folds)
    linear_D = x_ND.T @ fit.dual_N
    return Quadratic(_intercept(y_N - x_ND @ linear_D, weights_N), linear_D), fit.held_out_N


def pairwise(
    codes_ND: Tensor, ms_N: Tensor, weights_N: Tensor, folds: Sequence[Tensor]
) -> tuple[Quadratic, Tensor] | None:
    """The same with pairs; None where the smaller of samples and pairs is more than ``MOST``."""
    x_ND, y_N = codes_ND.double(), ms_N.double()
    met = (x_ND.T @ x_ND).triu(diagonal=1).nonzero().T  # pairs of columns that meet in some sample
    if min(met.shape[1] + x_ND.shape[1], len(x_ND)) > MOST:
        return None
    if met.shape[1] + x_ND.shape[1] <= len(x_ND):
        products_NP = PAIRS**0.5 * x_ND[:, met[0]] * x_ND[:, met[1]]
        parts = spectrum(torch.cat([x_ND, products_NP], dim=1), weights_N)
    else:
        common_NN = x_ND @ x_ND.T  # columns that two samples share; of them, n (n - 1) / 2 pairs
        parts = spectrum_of_kernel(common_NN * (1 + PAIRS * (common_NN - 1) / 2), weights_N)
    fit = ridge(parts, y_N, folds)
    linear_D, pairs_DD = x_ND.T @ fit.dual_N, PAIRS * x_ND.T @ (fit.dual_N[:, None] * x_ND)
    pairs_DD.fill_diagonal_(0.0)
    fitted_N = x_ND @ linear_D + ((x_ND @ pairs_DD) * x_ND).sum(dim=1) / 2
    return Quadratic(_intercept(y_N - fitted_N, weights_N), linear_D, pairs_DD), fit.held_out_N


def spectrum(features_NP: Tensor, weights_N: Tensor) -> Spectrum:
    """Of the smaller Gram matrix; float64."""
    if features_NP.shape[1] > features_NP.shape[0]:
        return spectrum_of_kernel(features_NP @ features_NP.T, weights_N)
    shares_N = (weights_N / weights_N.sum()).double()
    x_NP = shares_N.sqrt()[:, None] * (features_NP - shares_N @ features_NP)
    values_K, v_PK = torch.linalg.eigh(x_NP.T @ x_NP)
    kept = values_K > 1e-12 * values_K[-1]
    return Spectrum(x_NP @ v_PK[:, kept] / values_K[kept].sqrt(), values_K[kept], shares_N)


def spectrum_of_kernel(kernel_NN: Tensor, weights_N: Tensor) -> Spectrum:
    """Of features that are known by their inner products only."""
    shares_N = (weights_N / weights_N.sum()).double()
    means_N = kernel_NN @ shares_N
    centered_NN = kernel_NN - means_N[:, None] - means_N + shares_N @ means_N
    values_K, u_NK = torch.linalg.eigh(shares_N.sqrt()[:, None] * centered_NN * shares_N.sqrt())
    kept = values_K > 1e-12 * values_K[-1]
    return Spectrum(u_NK[:, kept], values_K[kept], shares_N)


def ridge(parts: Spectrum, target_N: Tensor, folds: Sequence[Tensor]) -> Fit:
    """The fit with an intercept whose leave-one-out error, weighted, is smallest. ``folds`` are indices of samples.

    In roots of the shares, so that the weighted fit is a plain one: prediction = H target for the hat matrix H, and
    the errors of a fit without a fold F are (I - H_FF)^-1 times those of the fit on all samples.
    """
    root_N = parts.shares_N.sqrt()
    y_N = root_N * target_N
    center_N = root_N * (root_N @ y_N)  # the intercept's part of H target
    projected_K = parts.u_NK.T @ (y_N - center_N)
    best = None
    for strength in STRENGTHS:
        kept_K = parts.values_K / (parts.values_K + strength * parts.values_K.sum() / len(y_N))
        error_N = y_N - center_N - parts.u_NK @ (kept_K * projected_K)
        own_N = parts.shares_N + parts.u_NK.square() @ kept_K  # the diagonal of H
        loss = (error_N / (1 - own_N).clamp_min(1e-6)).square().sum()
        if best is None or loss < best[0]:
            best = (loss, kept_K, error_N, strength * parts.values_K.sum() / len(y_N))
    assert best is not None
    _, kept_K, error_N, penalty = best
    dual_N = error_N / penalty
    held_out_N = target_N.clone()
    for fold in folds:
        u_FK = parts.u_NK[fold]
        hat_FF = torch.outer(root_N[fold], root_N[fold]) + (u_FK * kept_K) @ u_FK.T
        without_F = torch.linalg.solve(torch.eye(len(fold)).to(hat_FF) - hat_FF, error_N[fold])
        held_out_N[fold] = target_N[fold] - without_F / root_N[fold]
    return Fit(root_N * dual_N - parts.shares_N * (root_N @ dual_N), held_out_N)


def _intercept(rest_N: Tensor, weights_N: Tensor) -> Tensor:
    return (rest_N * weights_N).sum() / weights_N.sum()
