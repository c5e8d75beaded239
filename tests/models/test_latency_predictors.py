"""Predictors against closed forms, scipy and latencies that are known exactly."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.images.spaces import search_space
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import Predictor, fit, restore, stacked
from models.search.latency.quality import quality
from models.search.latency.ridge import additive, pairwise, ridge, spectrum, spectrum_of_kernel
from models.search.random_cells import random_cells

SPACE = search_space("nasbench201")


def codes(count: int, seed: int = 0) -> Tensor:
    source = random_cells(SPACE, torch.Generator().manual_seed(seed))
    return Encoding(SPACE).encode_all([next(source) for _ in range(count)])


def table(columns: int, seed: int = 1) -> Tensor:
    return torch.rand(columns, generator=torch.Generator().manual_seed(seed))


def noisy(ms: Tensor, share: float) -> Tensor:
    return ms * (1 + share * torch.randn(len(ms), generator=torch.Generator().manual_seed(2)))


def test_quality_is_that_of_scipy_with_ties() -> None:
    source = torch.Generator().manual_seed(0)
    one, other = (torch.randint(1, 40, (1500,), generator=source).float() for _ in range(2))
    other = other + one
    found = quality(one, other)
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(one, other)[0])
    assert found.kendall_tau == pytest.approx(scipy.stats.kendalltau(one, other)[0])
    error = ((one.double() - other) / other).abs()
    assert found.mean_relative_error == pytest.approx(float(error.mean()))
    assert found.within_10_percent == pytest.approx(float((error <= 0.1).double().mean()))
    assert quality(torch.ones(5), torch.arange(1.0, 6.0)).spearman == 0.0


@pytest.mark.parametrize("samples", [20, 60])
def test_ridge_tells_what_fits_without_a_fold_would_predict(samples: int) -> None:
    """More features than samples, and fewer. The strength is that of the fit on all samples."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 40, generator=source, dtype=torch.float64)
    y = x[:, 0] + 5 + 0.3 * torch.randn(samples, generator=source, dtype=torch.float64)
    weights = torch.rand(samples, generator=source, dtype=torch.float64) + 0.5
    folds = list(torch.arange(samples).chunk(4))
    fit = ridge(spectrum(x, weights), y, folds)
    same = ridge(spectrum_of_kernel(x @ x.T, weights), y, folds)
    torch.testing.assert_close(same.held_out_N, fit.held_out_N)
    torch.testing.assert_close(x.T @ same.dual_N, x.T @ fit.dual_N)
    share = weights / weights.sum()
    coefficients = x.T @ fit.dual_N
    centered, target = x - share @ x, y - share @ y
    rest = target - centered @ coefficients
    penalty = float((centered.T @ (share * rest)).norm() / coefficients.norm())  # of the normal equations

    def plain(kept: Tensor, at: Tensor) -> Tensor:
        own = share[kept] / share[kept].sum()
        mean, center = own @ x[kept], own @ y[kept]
        inner = (x[kept] - mean).T @ (share[kept, None] * (x[kept] - mean))
        beta = torch.linalg.solve(
            inner + penalty * torch.eye(40).to(x), (x[kept] - mean).T @ (share[kept] * (y[kept] - center))
        )
        return center + (x[at] - mean) @ beta

    for fold in folds:
        kept = torch.tensor([index for index in range(samples) if index not in fold])
        torch.testing.assert_close(fit.held_out_N[fold], plain(kept, fold), rtol=1e-6, atol=1e-6)


def test_a_sum_is_found_by_the_table_and_pairs_by_the_pairwise_one() -> None:
    some, folds = codes(500), list(torch.arange(500).chunk(5))
    weights, others = torch.ones(500), codes(100, seed=9)
    costs = table(some.shape[1])
    found, _ = additive(some, 2 + some @ costs, weights, folds)
    torch.testing.assert_close(found(others), 2 + others @ costs, rtol=0.02, atol=0.02)

    def with_pair(x: Tensor) -> Tensor:
        return 2 + x @ costs + 5 * x[:, 0] * x[:, 21]

    sums, _ = additive(some, with_pair(some), weights, folds)
    fitted = pairwise(some, with_pair(some), weights, folds)
    assert fitted is not None
    errors = [(predictor(others) - with_pair(others)).square().mean() for predictor in (sums, fitted[0])]
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize("samples", [60, 400])
def test_the_fit_is_the_same_again_and_survives_being_saved(samples: int) -> None:
    some = codes(samples)
    ms = noisy(2 + some @ table(some.shape[1]) + some[:, 3] * some[:, 20], 0.05)
    found, again = (fit(some, ms, seed=3) for _ in range(2))
    assert found.kind == again.kind
    assert ("network" in found.predictors) is (samples == 400), "too few samples for a network"
    for kind, predictor in found.predictors.items():
        said = predictor(some)
        assert said.shape == ms.shape and said.dtype == torch.float32
        assert torch.equal(said, again.predictors[kind](some))
        assert torch.equal(restore(kind, predictor.state())(some), said)
        assert torch.equal(restore(kind, predictor.state()).spread(some), predictor.spread(some))
    with pytest.raises(InvalidInput, match="this is no predictor"):
        restore("additive", {"parts.0.linear": some[0]})


def test_the_chosen_kind_is_never_worse_than_the_table() -> None:
    some, others = codes(300), codes(300, seed=5)
    ms = noisy(2 + some @ table(some.shape[1]), 0.1)
    found = fit(some, ms, seed=0)
    best, plain = found.scores[found.kind], found.scores["additive"]
    assert best.spearman >= plain.spearman
    truth = 2 + others @ table(some.shape[1])
    assert quality(found.predictor(others), truth).spearman > 0.97
    only = fit(some, ms, seed=0, kinds=("network",))
    assert set(only.scores) == {"additive", "network"}, "the table is always tried"


def test_an_ensemble_is_less_sure_far_from_its_samples() -> None:
    some = codes(300)
    near, far = some[:, 3] == 0, some[:, 3] == 1
    ms = 2 + some @ table(some.shape[1]) + some[:, 3] * some[:, 20]
    found = fit(some[near], ms[near], seed=0).doubtful
    assert found.kind == "ensemble"
    assert found.spread(some[far]).mean() > 1.5 * found.spread(some[near]).mean()
    assert not fit(some, ms, seed=0, kinds=("additive",)).doubtful.spread(some).any()


def test_few_samples_and_predictors_of_other_devices_do_better_than_few_samples() -> None:
    """Devices whose costs are mixtures of the same two tables."""
    some, new, others = codes(400), codes(30, seed=7), codes(400, seed=8)
    base = [table(some.shape[1], seed) for seed in (1, 2)]

    def ms(x: Tensor, share: float) -> Tensor:
        return 1 + share * (x @ base[0]) + (1 - share) * (x @ base[1])

    references = [fit(some, ms(some, share), seed=0, kinds=("additive",)).predictor for share in (0.9, 0.2)]
    alone = fit(new, ms(new, 0.5), seed=0)
    helped = fit(new, ms(new, 0.5), seed=0, references=references)
    assert helped.kind == "transfer"
    scores = [quality(found.predictor(others), ms(others, 0.5)).spearman for found in (alone, helped)]
    assert scores[1] > 0.99 > scores[0]
    kept = restore("transfer", helped.predictor.state())
    assert torch.equal(kept(others), helped.predictor(others))


def test_a_sample_without_weight_does_not_count() -> None:
    some = codes(200)
    ms = 2 + some @ table(some.shape[1])
    wrong = ms.clone()
    wrong[:20] *= 10
    weights = torch.ones(200)
    weights[:20] = 1e-9
    found = fit(some, wrong, seed=0, weights=weights, kinds=("additive",)).predictor
    assert quality(found(some), ms).mean_relative_error < 0.05


def test_predictions_add_up_with_weights_that_are_not_negative() -> None:
    said = torch.tensor([[1.0, 2.0, -1.0], [2.0, 1.0, -2.0], [3.0, 5.0, -3.0]])
    shares = stacked(said, 0.5 * said[:, 0] + 0.25 * said[:, 1], torch.ones(3))
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_latency_is_refused(ms: float) -> None:
    some = codes(12)
    with pytest.raises(InvalidInput, match="not a positive number of ms"):
        fit(some, torch.tensor([1.0] * 11 + [ms]), seed=0)
    with pytest.raises(InvalidInput, match="9 samples are too few"):
        fit(some[:9], torch.ones(9), seed=0)


def test_predictors_are_differentiable_in_the_code() -> None:
    some = codes(200)
    found = fit(some, 2 + some @ table(some.shape[1]), seed=0)
    for predictor in found.predictors.values():
        assert isinstance(predictor, Predictor)
        at = some[:3].clone().requires_grad_()
        predictor(at).sum().backward()
        assert at.grad is not None and bool(at.grad.any())
        assert not any(weight.requires_grad for weight in predictor.parameters())
