"""The update of each strategy, against a few lines written out here, on a loss of a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.gradients import Descent, Joint, Pathwise, Step, unrolled
from models.search.smoothing import MeanShift, MeanShiftConfig, Perturbation, PerturbationConfig
from models.search.strategies import AlphaConfig, Alternating, row_entropy, sigmoid
from models.training.seeds import generator
from tests.models.toy import SPACE, ToyObjective, toy_mix, weights

pytestmark = pytest.mark.usefixtures("double")
DESCENT = Descent(0.1, 0.9, 3e-4, {})
CONFIG = AlphaConfig(learning_rate=0.05, warmup_epochs=0)


def softmax(alpha: dict[str, Tensor]) -> dict[str, Tensor]:
    return {group: rows.exp() / rows.exp().sum(dim=-1, keepdim=True) for group, rows in alpha.items()}


def strengths(alpha: dict[str, Tensor]) -> dict[str, Tensor]:
    return {group: 1 / (1 + (-rows).exp()) for group, rows in alpha.items()}


class Adam:
    """Adam with weight decay in the gradient, as published (Kingma and Ba, algorithm 1)."""

    def __init__(self, alpha: dict[str, Tensor]):
        self.m = {group: torch.zeros_like(rows) for group, rows in alpha.items()}
        self.v = {group: torch.zeros_like(rows) for group, rows in alpha.items()}
        self.t = 0

    def step(self, alpha: dict[str, Tensor], gradient: dict[str, Tensor]) -> dict[str, Tensor]:
        self.t += 1
        moved = {}
        for group, rows in alpha.items():
            g = gradient[group] + 1e-3 * rows
            self.m[group] = 0.5 * self.m[group] + 0.5 * g
            self.v[group] = 0.999 * self.v[group] + 0.001 * g * g
            m, v = self.m[group] / (1 - 0.5**self.t), self.v[group] / (1 - 0.999**self.t)
            moved[group] = rows - 0.05 * m / (v.sqrt() + 1e-8)
        return moved


def gradient_at(alpha: dict[str, Tensor], loss: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, Tensor]:
    leaves = {group: rows.clone().requires_grad_() for group, rows in alpha.items()}
    loss(leaves).backward()
    return {group: rows.grad for group, rows in leaves.items() if rows.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    assert set(found) == set(expected)
    for group, rows in found.items():
        torch.testing.assert_close(rows, expected[group], rtol=0, atol=tolerance)


def strategy(**arguments: object) -> Alternating:
    made = Alternating(SPACE, CONFIG, generator(0, "alpha"), **arguments)  # pyright: ignore[reportArgumentType]
    made.start_epoch(0)
    return made


def test_darts_moves_alpha_by_adam_then_hands_over_its_softmax() -> None:
    found, params, train, valid = strategy(), weights(), ToyObjective(1), ToyObjective(2)
    alpha = found.alphas()
    adam = Adam(alpha)
    for _ in range(3):
        mix = found.step(Step(params, train, valid, lambda: DESCENT)).mix
        alpha = adam.step(alpha, gradient_at(alpha, lambda at: valid(params, softmax(at))))
        assert_same(found.alphas(), alpha)
        assert_same(dict(mix), softmax(alpha))
        assert not any(rows.requires_grad for rows in mix.values())


def test_second_order_moves_alpha_by_the_gradient_through_the_step_of_the_weights() -> None:
    params, train, valid = weights(), ToyObjective(1), ToyObjective(2)
    found = strategy(estimator=Pathwise(unrolled))
    alpha = found.alphas()

    def ahead(at: dict[str, Tensor]) -> Tensor:
        gradients = torch.autograd.grad(train(params, softmax(at)), list(params.values()), create_graph=True)
        moved = [w - 0.1 * (g + 3e-4 * w) for w, g in zip(params.values(), gradients, strict=True)]
        return valid(dict(zip(params, moved, strict=True)), softmax(at))

    found.step(Step(params, train, valid, lambda: DESCENT))
    exact = gradient_at(alpha, ahead)
    for group, rows in found.alpha.items():
        torch.testing.assert_close(rows.grad, exact[group], rtol=1e-4, atol=1e-4)
    assert_same(found.alphas(), Adam(alpha).step(alpha, exact), tolerance=1e-4)


def test_single_level_moves_both_from_the_same_point_on_the_same_batch() -> None:
    params, train = weights(), ToyObjective(1)
    found = strategy(estimator=Joint(), relaxation=sigmoid)
    alpha = found.alphas()
    update = found.step(Step(params, train, train, lambda: DESCENT))
    assert_same(dict(update.mix), strengths(alpha))
    assert update.weights is not None
    train(params, strengths(alpha)).backward()
    assert_same(
        dict(update.weights.gradients),
        {name: weight.grad for name, weight in params.items() if weight.grad is not None},
    )
    assert train.passes == 2, "one pass of the strategy, one of this test"
    expected = Adam(alpha).step(alpha, gradient_at(alpha, lambda at: train(params, strengths(at))))
    assert_same(found.alphas(), expected)


def test_random_smoothing_hands_over_one_uniform_neighbour() -> None:
    smoothing = Perturbation(PerturbationConfig(), 3, generator(0, "smoothing"))
    smoothing.start_epoch(2)
    mix, draws = toy_mix(), generator(0, "smoothing")
    found = smoothing(mix, weights(), ToyObjective(1))
    for group, rows in mix.items():
        noisy = (rows + 0.3 * (2 * torch.rand((1, *rows.shape), generator=draws)[0] - 1)).clip(0, 1)
        torch.testing.assert_close(found[group], noisy / noisy.sum(dim=-1, keepdim=True), rtol=0, atol=1e-14)


def test_the_mean_shift_scores_its_samples_on_part_of_the_batch_if_asked_to() -> None:
    train, params, mix = ToyObjective(1), weights(), toy_mix()

    def shifted(every: int, objective: ToyObjective) -> Mapping[str, Tensor]:
        config = MeanShiftConfig(radius_start=0.2, probe_every=every)
        return MeanShift(config, 3, generator(0, "smoothing"))(mix, params, objective)

    part = shifted(2, train)
    assert train.probes == 0, "the whole batch is not scored as well"
    assert_same(dict(part), dict(shifted(1, train.thinned(2))))
    assert not torch.allclose(part["one"], shifted(1, train)["one"])


def test_adversarial_smoothing_climbs_inside_the_box() -> None:
    train, params, mix, radius = ToyObjective(1), weights(), toy_mix(), 0.03
    smoothing = Perturbation(PerturbationConfig(steps=7), 3, generator(0, "smoothing"))
    found = smoothing(mix, params, train)
    assert all(weight.grad is None for weight in params.values())
    draws = generator(0, "smoothing")
    point = {}
    for group, rows in mix.items():
        noisy = rows + radius * (2 * torch.rand((1, *rows.shape), generator=draws)[0] - 1)
        point[group] = noisy.clip(0, 1) / noisy.clip(0, 1).sum(dim=-1, keepdim=True)
    start = train.evaluated(params, point)
    for _ in range(7):
        slope = gradient_at(point, lambda at: train.evaluated(params, at))
        for group, rows in mix.items():
            moved = point[group] + 2 * radius / 7 * slope[group].sign()
            moved = torch.minimum(torch.maximum(moved, rows - radius), rows + radius).clip(0, 1)
            point[group] = moved / moved.sum(dim=-1, keepdim=True)
    assert_same(dict(found), point)
    assert train.evaluated(params, found) > start


@pytest.mark.parametrize(
    ("sign", "temperature", "bandwidth"), [(1, 1.0, 1.0), (-1, 1.0, 0.2), (1, 0.1, "auto")]
)
def test_mean_shift_smoothing_averages_the_samples_it_has_scored(
    sign: int, temperature: float, bandwidth: float | str
) -> None:
    """Also defect 1: the same projected points are evaluated, measured and averaged."""
    config = MeanShiftConfig(sign=sign, temperature=temperature, bandwidth=bandwidth)  # pyright: ignore[reportArgumentType]
    smoothing = MeanShift(config, 5, generator(0, "smoothing"))
    smoothing.start_epoch(4)
    train, params, mix = ToyObjective(1), weights(), toy_mix()
    found = smoothing(mix, params, train)
    draws = generator(0, "smoothing")
    for _ in range(2):
        samples = {}
        for group, rows in mix.items():
            noisy = (rows + 0.25 * (2 * torch.rand((3, *rows.shape), generator=draws) - 1)).clip(0, 1)
            samples[group] = noisy / noisy.sum(dim=-1, keepdim=True)
        losses = [
            train.evaluated(params, {group: drawn[n] for group, drawn in samples.items()}) for n in range(3)
        ]
        shifted = {}
        for group, rows in mix.items():
            squared = [float((rows - sample).square().sum()) for sample in samples[group]]
            width = sorted(squared)[1] ** 0.5 if bandwidth == "auto" else float(bandwidth)
            weight = [
                (sign * loss.detach() / temperature).exp() * torch.tensor(-square / (2 * width**2)).exp()
                for loss, square in zip(losses, squared, strict=True)
            ]
            shifted[group] = sum(w * s for w, s in zip(weight, samples[group], strict=True)) / sum(weight)
        mix = shifted
    assert_same(dict(found), mix)
    assert train.probes == 2, "each iteration scores all samples in one pass"
    report = smoothing.report()
    assert report["radius"] == 0.25
    assert 1.0 <= report["effective_sample_size"] <= 3.0
    assert (report["bandwidth"] == bandwidth) == (bandwidth != "auto")


def test_alpha_stays_during_warm_up_while_smoothing_works() -> None:
    smoothing = MeanShift(MeanShiftConfig(), 9, generator(0, "smoothing"))
    found = Alternating(SPACE, AlphaConfig(warmup_epochs=2), generator(0, "alpha"), smoothing)
    before, params = found.alphas(), weights()
    for epoch in range(3):
        found.start_epoch(epoch)
        assert found.needs_valid() == (epoch == 2)
        mix = found.step(Step(params, ToyObjective(1), ToyObjective(2), lambda: DESCENT)).mix
        assert (found.report()["architecture_loss"] is None) == (epoch < 2)
        moved = sum(float((mix[group] - found.mix()[group]).detach().square().sum()) for group in mix) ** 0.5
        assert found.report()["movement"] == pytest.approx(moved)
        if epoch < 2:
            assert_same(found.alphas(), before, tolerance=0)
    assert any((found.alphas()[group] != rows).any() for group, rows in before.items())


def test_a_flat_kernel_is_told_once_also_after_a_resume() -> None:
    def epoch_of(smoothing: MeanShift, epoch: int) -> list[str]:
        smoothing.start_epoch(epoch)
        smoothing(toy_mix(), weights(), ToyObjective(1))
        return smoothing.notices()

    first = MeanShift(MeanShiftConfig(bandwidth=100.0), 3, generator(0, "smoothing"))
    (message,) = epoch_of(first, 0)
    assert "bandwidth 100.0" in message and "less than 1%" in message and "auto" in message
    assert epoch_of(first, 1) == []
    resumed = MeanShift(MeanShiftConfig(bandwidth=100.0), 3, generator(1, "smoothing"))
    resumed.load_state_dict(first.state_dict())
    assert epoch_of(resumed, 2) == []
    sharp = MeanShift(MeanShiftConfig(bandwidth=0.1), 3, generator(0, "smoothing"))
    assert epoch_of(sharp, 2) == []


def test_smoothing_refuses_sigmoid_weights() -> None:
    smoothing = Perturbation(PerturbationConfig(), 3, generator(0, "smoothing"))
    with pytest.raises(InvalidInput, match="needs softmax"):
        strategy(smoothing=smoothing, relaxation=sigmoid)


def test_smoothing_refuses_to_share_a_pass_with_alpha() -> None:
    smoothing = Perturbation(PerturbationConfig(), 3, generator(0, "smoothing"))
    with pytest.raises(InvalidInput, match="a pass of its own"):
        strategy(smoothing=smoothing, estimator=Joint())


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"iterations": 0},
        {"bandwidth": 0.0},
        {"bandwidth": -1.0},
        {"sign": 2},
        {"temperature": 0.0},
    ],
)
def test_mean_shift_refuses_settings_without_a_meaning(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=rf"mean_shift.{next(iter(changes))} is "):
        MeanShift(MeanShiftConfig(**changes), 3, generator(0, "smoothing"))  # pyright: ignore[reportArgumentType]


def test_entropy_of_rows() -> None:
    assert row_entropy(torch.full((3, 8), 1 / 8)) == pytest.approx(2.0794415416798357)
    assert row_entropy(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == 0.0
    assert row_entropy(torch.full((3, 8), 0.5)) == pytest.approx(2.0794415416798357), "sigmoid weights"
