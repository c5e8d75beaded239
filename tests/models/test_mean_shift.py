from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from models.search.mean_shift import (
    effective_sample_size,
    kernel_spread,
    mean_shift,
    median_bandwidth,
    perturb,
    project,
    sample_weights,
)


def points(seed: int, *shape: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(shape, generator=source, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_mean_shift_meets_the_conformance_numbers(shared: Path, dtype: torch.dtype, tolerance: float) -> None:
    for case in json.loads((shared / "conformance/mean_shift.json").read_text())["cases"]:
        center, samples, losses, expected = (
            torch.tensor(case[name], dtype=dtype) for name in ("center", "samples", "losses", "expected")
        )
        found = mean_shift(center, samples, losses, case["bandwidth"])
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_projection_meets_the_conformance_numbers(shared: Path) -> None:
    for case in json.loads((shared / "conformance/simplex_projection.json").read_text())["cases"]:
        rows, expected = (torch.tensor(case[name], dtype=torch.float64) for name in ("input", "expected"))
        torch.testing.assert_close(project(rows), expected, rtol=0, atol=1e-12)


def test_mean_shift_is_the_weighted_mean_of_its_definition() -> None:
    center, samples = points(0, 3, 4), points(1, 5, 3, 4)
    losses, bandwidth = [0.3, 1.2, -0.4, 2.0, 0.0], 0.7
    weights = []
    for n in range(5):
        squared = sum(float(center[e, o] - samples[n, e, o]) ** 2 for e in range(3) for o in range(4))
        weights.append(math.exp(losses[n]) * math.exp(-squared / (2 * bandwidth**2)))
    expected = sum(weight * sample for weight, sample in zip(weights, samples, strict=True)) / sum(weights)
    found = mean_shift(center, samples, torch.tensor(losses, dtype=torch.float64), bandwidth)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_projection_clips_and_divides_row_by_row() -> None:
    rows = torch.tensor([[0.5, 0.7, -0.2], [1.5, 0.5, 0.0], [-0.3, -0.1, -0.2], [0.2, 0.3, 0.5]])
    expected = torch.tensor(
        [[0.5 / 1.2, 0.7 / 1.2, 0.0], [1.0 / 1.5, 0.5 / 1.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]
    )
    torch.testing.assert_close(project(rows), expected)


def test_samples_and_their_mean_shift_stay_on_the_simplex() -> None:
    """Defect 1: the published code averages samples from before the projection, up to 15% of them negative."""
    center = points(2, 14, 8)
    samples = perturb(center, 64, 0.25, torch.Generator().manual_seed(0))
    shifted = mean_shift(center, samples, torch.randn(64, dtype=torch.float64), 1.0)
    for rows in (samples, shifted):
        assert rows.min() >= 0
        torch.testing.assert_close(rows.sum(dim=-1), torch.ones_like(rows[..., 0]), rtol=0, atol=1e-12)
    assert (samples == 0).any(), "the radius was too small for the clipping to matter"


def test_samples_lie_uniformly_in_the_box_before_the_projection() -> None:
    center = torch.full((1, 2), 0.5, dtype=torch.float64)
    source, again = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    noise = torch.rand((1000, 1, 2), generator=again, dtype=torch.float64)
    assert 0.49 < float(noise.mean()) < 0.51
    expected = project(center - 0.1 + 0.2 * noise)
    torch.testing.assert_close(perturb(center, 1000, 0.1, source), expected, rtol=0, atol=1e-15)


def test_far_samples_and_high_losses_give_weights_and_no_nan() -> None:
    center, samples = points(4, 2, 3), points(5, 3, 2, 3)
    losses = torch.tensor([1e4, 0.0, -1e4], dtype=torch.float64)
    assert sample_weights(center, samples, losses, 1e-3).isfinite().all()
    torch.testing.assert_close(mean_shift(center, samples, losses, 1.0), samples[0])


def test_median_bandwidth_gives_the_middle_sample_the_kernel_exp_minus_half() -> None:
    center, samples = points(6, 14, 8), points(7, 5, 14, 8)
    bandwidth = median_bandwidth(center, samples)
    distances = sorted(float((center - sample).norm()) for sample in samples)
    assert float(bandwidth) == pytest.approx(distances[2], rel=1e-12)
    assert mean_shift(center, center.expand(3, -1, -1), torch.zeros(3), bandwidth).isfinite().all()
    same = median_bandwidth(center, center.expand(3, -1, -1))
    assert mean_shift(center, center.expand(3, -1, -1), torch.zeros(3), same).isfinite().all()


def test_kernel_spread_is_how_much_the_kernel_weights_differ() -> None:
    center, samples = points(8, 3, 4), points(9, 4, 3, 4)
    kernels = [math.exp(-float((center - sample).square().sum()) / (2 * 0.8**2)) for sample in samples]
    assert float(kernel_spread(center, samples, 0.8)) == pytest.approx(1 - min(kernels) / max(kernels))


@pytest.mark.parametrize(
    ("weights", "size"), [([0.25] * 4, 4.0), ([1.0, 0.0, 0.0], 1.0), ([0.5, 0.5, 0.0], 2.0)]
)
def test_effective_sample_size(weights: list[float], size: float) -> None:
    assert float(effective_sample_size(torch.tensor(weights))) == pytest.approx(size)
