from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.search.mean_shift import (
    effective_sample_size,
    kernel_spread,
    mean_shift,
    median_bandwidth,
    perturb,
    project,
    sample_weights,
)

QUICKLY = settings(max_examples=50, deadline=None, derandomize=True)


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


ROWS = st.integers(1, 6).flatmap(
    lambda ops: st.lists(st.lists(st.floats(-2, 2), min_size=ops, max_size=ops), min_size=1, max_size=4).map(
        lambda rows: torch.tensor(rows, dtype=torch.float64)
    )
)


@QUICKLY
@given(ROWS)
def test_projections_lie_on_the_simplex_and_stay_where_they_are(rows: torch.Tensor) -> None:
    projected = project(rows)
    assert projected.shape == rows.shape and float(projected.min()) >= 0
    torch.testing.assert_close(projected.sum(dim=-1), torch.ones(len(rows)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(project(projected), projected, rtol=0, atol=1e-12)


@QUICKLY
@given(ROWS)
def test_projection_keeps_the_order_of_operations_and_the_largest_of_a_row_below_zero(
    rows: torch.Tensor,
) -> None:
    for row, projected in zip(rows.tolist(), project(rows).tolist(), strict=True):
        if max(row) <= 0:
            first = row.index(max(row))
            assert projected == [float(op == first) for op in range(len(row))]
        in_order = [weight for _, weight in sorted(zip(row, projected, strict=True))]
        assert in_order == sorted(in_order) or max(row) <= 0
        assert projected[row.index(max(row))] == max(projected)


def test_projection_clips_and_divides_row_by_row() -> None:
    rows = torch.tensor([[0.5, 0.7, -0.2], [1.5, 0.5, 0.0], [-0.3, -0.1, -0.2], [0.2, 0.3, 0.5]])
    expected = torch.tensor(
        [[0.5 / 1.2, 0.7 / 1.2, 0.0], [1.0 / 1.5, 0.5 / 1.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]
    )
    torch.testing.assert_close(project(rows), expected)


def test_samples_and_their_mean_shift_stay_on_the_simplex() -> None:
    """Defect 1: the published code averages samples as they were before the projection, up to 15% negative."""
    center = points(2, 14, 8)
    samples = perturb(center, 64, 0.25, torch.Generator().manual_seed(0))
    shifted = mean_shift(center, samples, torch.randn(64, dtype=torch.float64), 1.0)
    for rows in (samples, shifted):
        assert rows.min() >= 0
        torch.testing.assert_close(rows.sum(dim=-1), torch.ones_like(rows[..., 0]), rtol=0, atol=1e-12)
    assert (samples == 0).any(), "the radius was too small for the clipping to matter"


@pytest.mark.parametrize("radius", [0.1, 0.4])
def test_samples_are_uniform_in_the_box_and_then_projected(radius: float) -> None:
    """For one edge of two operations, centered, the share of samples beyond 1/2 + t has a closed form.

    With a and b uniform in [-r, r], (1/2 + a) / (1 + a + b) > 1/2 + t is a (1/2 - t) - b (1/2 + t) > t: a
    corner of the square with legs (r - t) / (1/2 - t) and (r - t) / (1/2 + t). The corner is (r - t)^2 / (8
    r^2 (1/4 - t^2)) of the square.
    """
    samples = 40_000
    center = torch.full((1, 2), 0.5, dtype=torch.float64)
    first = perturb(center, samples, radius, torch.Generator().manual_seed(3))[:, 0, 0]
    for t in (0.0, 0.25 * radius, 0.5 * radius, 0.9 * radius):
        expected = (radius - t) ** 2 / (8 * radius**2 * (0.25 - t**2))
        deviation = math.sqrt(expected * (1 - expected) / samples)
        for beyond in (first > 0.5 + t, first < 0.5 - t):
            assert abs(float(beyond.double().mean()) - expected) < 4 * deviation, t
    assert 0.5 - radius <= float(first.min()) and float(first.max()) <= 0.5 + radius


def test_samples_edges_and_operations_are_perturbed_independently() -> None:
    center = torch.full((3, 4), 0.25, dtype=torch.float64)
    samples = perturb(center, 2000, 0.05, torch.Generator().manual_seed(0))
    assert samples.shape == (2000, 3, 4)
    # A row sums to 1, so its entries have the correlation -1/3; entries of different edges have none.
    expected = torch.kron(torch.eye(3), torch.eye(4) * 4 / 3 - 1 / 3).double()
    correlation = torch.corrcoef(samples.flatten(1).T)
    torch.testing.assert_close(correlation, expected, rtol=0, atol=0.1)
    after_another = torch.corrcoef(torch.stack([samples[:-1].flatten(), samples[1:].flatten()]))[0, 1]
    assert abs(float(after_another)) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_type_of_the_center_and_come_from_the_generator(dtype: torch.dtype) -> None:
    center = points(3, 2, 3).to(dtype)
    drawn = [perturb(center, 4, 0.1, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0].dtype == dtype
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


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


@pytest.mark.usefixtures("double")
def test_types_are_those_of_the_mix_whatever_the_default_and_the_losses_have() -> None:
    center = points(10, 2, 3).float()
    samples = perturb(center, 4, 0.1, torch.Generator().manual_seed(0))
    assert samples.dtype == torch.float32
    shifted = mean_shift(center, samples, torch.zeros(4, dtype=torch.float64), 1.0)
    assert shifted.dtype == torch.float32
    torch.testing.assert_close(shifted.sum(dim=-1), torch.ones(2, dtype=torch.float32))


def test_samples_are_drawn_where_the_generator_is_and_used_where_the_center_is() -> None:
    """With the meta device in the place of a GPU."""
    center = torch.empty(2, 3, device="meta")
    samples = perturb(center, 4, 0.1, torch.Generator("cpu"))
    assert samples.is_meta and samples.shape == (4, 2, 3)
    center = points(11, 2, 3)
    with torch.device("meta"):
        assert perturb(center, 4, 0.1, torch.Generator("cpu")).device.type == "cpu"


def test_no_gradient_through_the_projection_is_ever_nan() -> None:
    rows = torch.tensor([[0.0, -0.1, 0.0], [0.5, 0.7, -0.2]], requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):  # raises where one arises, though later steps may hide it
        (project(rows) ** 2).sum().backward()
    assert rows.grad is not None and rows.grad.isfinite().all()
