"""The mean shift of the mixing weights, the heart of MS-DARTS (Hsieh et al., arXiv 2108.09996).

Before every weight step the mixing weights ``a = softmax(alpha)`` are replaced by an estimate of where
the mass of scored samples around them lies. One iteration, per cell type:

    xi_n  = project(a + uniform(-radius, radius))            n = 1..samples   (perturb)
    L_n   = loss of the train batch at xi_n                                   (the objective's probe)
    a    <- sum_n c_n xi_n,   c_n ~ softmax(L)_n exp(-||a - xi_n||_F^2 / (2 bandwidth^2))  (mean_shift)

models/search/smoothing.py puts it into the search.

Differs from the published code in that the samples that are evaluated and measured are the projected ones,
and that these same samples are averaged, so that the estimate never leaves the simplex.

Axes: N samples, E edges, O operations.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project(rows: Tensor) -> Tensor:
    """Projects rows (..., O) onto the simplex: clips to [0, 1], then divides by the sum.

    A row that clips to all zeros gets 1 at its largest entry. This is the projection of SmoothDARTS (arXiv
    2002.05283), not the Euclidean one.
    """
    clipped = rows.clamp(0.0, 1.0)
    total = clipped.sum(dim=-1, keepdim=True)
    largest = torch.zeros_like(rows).scatter_(-1, rows.argmax(dim=-1, keepdim=True), 1.0)
    empty = total == 0
    return torch.where(empty, largest, clipped / torch.where(empty, torch.ones_like(total), total))


def perturb(
    center_EO: Tensor,
    samples: int,
    radius: float,
    generator: torch.Generator,
    live_EO: Tensor | None = None,
) -> Tensor:
    """``samples`` points (N, E, O), uniform in the box of half-width ``radius`` around the center, projected.

    Entries that are not live, where not all are, stay 0.
    """
    noise = torch.rand(
        (samples, *center_EO.shape), generator=generator, dtype=center_EO.dtype, device=generator.device
    ).to(center_EO.device)
    return project(living(center_EO + radius * (2.0 * noise - 1.0), live_EO))


def living(rows: Tensor, live_EO: Tensor | None) -> Tensor:
    """Rows of which ``project`` makes 0 wherever ``live_EO``, if given, is false."""
    return rows if live_EO is None else rows.masked_fill(~live_EO, -torch.inf)


def squared_distances(center_EO: Tensor, samples_NEO: Tensor) -> Tensor:
    """||center - sample_n||_F^2, (N,)."""
    return (center_EO - samples_NEO).square().flatten(1).sum(dim=1)


def sample_weights(
    center_EO: Tensor, samples_NEO: Tensor, losses_N: Tensor, bandwidth: float | Tensor
) -> Tensor:
    """The weights c (N,) of the samples, summing to 1: softmax of the losses times a Gaussian kernel.

    ``c_n`` is proportional to ``softmax(losses)_n * exp(-||center - sample_n||_F^2 / (2 bandwidth^2))``. The
    exponents of both factors are added before the exponential, so that far samples get weight 0 and never
    0/0.
    """
    exponent_N = squared_distances(center_EO, samples_NEO) / (2.0 * bandwidth**2)
    return torch.softmax(losses_N.to(samples_NEO.dtype) - exponent_N, dim=0)


def mean_shift(center: Tensor, samples: Tensor, losses: Tensor, bandwidth: float | Tensor) -> Tensor:
    """One mean-shift iteration: the weighted mean (E, O) of the samples.

    center (E, O) is the point that distances are measured from, samples (N, E, O) are the scored points and
    losses (N,) their scores. A higher loss weighs more, as published; pass negated losses for the opposite.
    Pure; float32 or float64. The result is a convex combination: when every sample lies on the simplex, so
    does the result.
    """
    return torch.tensordot(sample_weights(center, samples, losses, bandwidth), samples, dims=1)


def median_bandwidth(center_EO: Tensor, samples_NEO: Tensor) -> Tensor:
    """``bandwidth: auto``: the median of the distances ||center - sample_n||_F, a scalar.

    The median heuristic of kernel methods, applied to the distances that the kernel is evaluated at, not to
    those between samples. The middle sample therefore has the kernel exp(-1/2), whatever the radius and the
    size of the mix. Of an even number of samples, the lower of the two middle distances is taken.
    """
    distance = squared_distances(center_EO, samples_NEO).sqrt().median()
    return distance.clamp_min(torch.finfo(distance.dtype).eps)  # radius 0: all samples are the center


def kernel_spread(center_EO: Tensor, samples_NEO: Tensor, bandwidth: float | Tensor) -> Tensor:
    """1 - smallest / largest kernel weight, in [0, 1]. Near 0, the kernel hardly tells samples apart."""
    exponent_N = squared_distances(center_EO, samples_NEO) / (2.0 * bandwidth**2)
    return -torch.expm1(exponent_N.min() - exponent_N.max())


def effective_sample_size(weights_N: Tensor) -> Tensor:
    """1 / sum c_n^2 (Kish): N when all samples weigh the same, 1 when one sample has all the weight."""
    return 1.0 / weights_N.square().sum()
