"""Pooling without gradients is computed differently from pooling with gradients; both equal PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.images.ops.candidates import OpSpec, Pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(1, 1), (1, 4), (2, 3), (5, 2), (8, 8), (9, 11)])
def test_pooling(sides: tuple[int, int], stride: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, *sides), generator=generator, dtype=dtype)
    spec = OpSpec(3, stride)
    largest, average = Pool("max", spec, norm=False), Pool("average", spec, norm=False)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for layout in (torch.contiguous_format, torch.channels_last):
        at = x.to(memory_format=layout)
        with torch.no_grad():
            quick_largest, quick_average = largest(at), average(at)
        assert torch.equal(quick_largest, F.max_pool2d(x, 3, stride, 1))
        expected = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        torch.testing.assert_close(quick_average, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(average(at), expected, rtol=0, atol=0)


def test_a_maximum_without_gradients_keeps_what_is_not_a_number() -> None:
    """Perturbed losses must show that a search diverges."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = torch.nan
    with torch.no_grad():
        assert Pool("max", OpSpec(1), norm=False)(x).isnan().sum() == 9


def test_pooling_keeps_the_channels_last() -> None:
    """Otherwise every later operation would take several times as long."""
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    for kind in ("max", "average"):
        for stride in (1, 2):
            with torch.no_grad():
                y = Pool(kind, OpSpec(3, stride), norm=False)(x)
            assert y.is_contiguous(memory_format=torch.channels_last), (kind, stride)
