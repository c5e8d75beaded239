"""The score function against exact enumeration, on circuits of two places with three operations."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from models.circuits.named import named_state
from models.circuits.notation import sequence
from models.circuits.objective import ANGLES, AngleNoise, CircuitObjective, restarts_space
from models.circuits.targets import state_target
from models.errors import InvalidInput
from models.images.spaces import search_space
from models.search.gradients import Descent, Estimate, Joint, Step
from models.search.penalties import Constant, Cost, repetition
from models.search.score_function import ScoreFunction, ScoreFunctionConfig
from models.search.strategies import AlphaConfig, Alternating, softmax
from models.training.seeds import generator
from tests.models.tiny import ALPHA, search, task

POOL, GROUP, STEPS = ["ry(0)", "cx(0,1)", "h(1)"], "restart 1", 120
CIRCUIT, TARGET = sequence(2, POOL, 2), state_target(named_state("bell", 2))
ALPHAS = torch.tensor([[0.6, -0.2, 0.1], [-0.3, 0.5, 0.0]])


def no_descent() -> Descent:
    raise AssertionError


def step() -> Step:
    angles = torch.tensor([0.9, 0.4]).repeat_interleave(3).reshape(1, 2, 3, 1)
    objective = CircuitObjective(CIRCUIT, TARGET)
    return Step({ANGLES: angles}, objective, objective, no_descent)


def estimates(config: ScoreFunctionConfig, steps: int = STEPS, seed: int = 0) -> list[Estimate]:
    estimator = ScoreFunction(config, generator(seed, "samples"))
    alphas = {GROUP: ALPHAS.clone().requires_grad_()}
    return [estimator(alphas, softmax, step()) for _ in range(steps)]


def exact(angles: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the mean loss over all nine circuits with respect to alpha and to the angles."""
    alpha, angles = ALPHAS.clone().requires_grad_(), angles.clone().requires_grad_()
    objective, total = CircuitObjective(CIRCUIT, TARGET), torch.zeros(())
    for choice in itertools.product(range(3), repeat=2):
        rows = torch.softmax(alpha, dim=-1)
        probability = rows[0, choice[0]] * rows[1, choice[1]]
        values = objective.circuits(angles, torch.zeros(1, dtype=torch.int64), torch.tensor([choice]))
        total = total + probability * TARGET.losses(values)[0]
    of_alpha, of_angles = torch.autograd.grad(total, [alpha, angles])
    return of_alpha, of_angles


@pytest.mark.parametrize("baseline", ["previous", "running", "none"])
def test_gradients_are_those_of_the_mean_over_all_circuits(baseline: Any) -> None:
    found = estimates(ScoreFunctionConfig(32, baseline))
    angles = step().params[ANGLES]
    of_alpha = torch.stack([estimate.alphas[GROUP] for estimate in found])
    passes = [estimate.weights for estimate in found]
    of_angles = torch.stack([one.gradients[ANGLES] for one in passes if one is not None])
    for estimated, expected in zip((of_alpha, of_angles), exact(angles), strict=True):
        error = estimated.std(dim=0) / len(estimated) ** 0.5
        assert bool(((estimated.mean(dim=0) - expected).abs() <= 3 * error + 1e-7).all())


def test_the_baseline_lowers_the_variance() -> None:
    def variance(baseline: Any) -> float:
        found = estimates(ScoreFunctionConfig(32, baseline))[1:]  # the first step has no baseline yet
        return float(torch.stack([one.alphas[GROUP] for one in found]).var(dim=0).sum())

    without = variance("none")
    assert without / variance("previous") > 4  # 9 measured with 400 steps
    assert without / variance("running") > 4


def test_the_exact_estimator_is_the_limit_of_the_samples() -> None:
    now = step()
    alphas = {GROUP: ALPHAS.clone().requires_grad_()}
    estimate = Joint()(alphas, softmax, now)
    of_alpha, of_angles = exact(now.params[ANGLES])
    assert estimate.weights is not None
    torch.testing.assert_close(estimate.alphas[GROUP], of_alpha, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(estimate.weights.gradients[ANGLES], of_angles, atol=1e-6, rtol=1e-5)


def test_angles_of_operations_that_were_not_drawn_have_no_gradient() -> None:
    (found,) = estimates(ScoreFunctionConfig(1), steps=1)
    assert found.weights is not None
    gradient = found.weights.gradients[ANGLES][0, ..., 0]
    source = generator(0, "samples")
    drawn = torch.multinomial(torch.softmax(ALPHAS, -1), 1, replacement=True, generator=source)[:, 0].tolist()
    for place, op in itertools.product(range(2), range(3)):
        assert drawn[place] == op or gradient[place, op] == 0


def test_clipped_probabilities_are_what_is_drawn_from() -> None:
    estimator = ScoreFunction(ScoreFunctionConfig(1, clip=0.7), generator(0, "samples"))
    sure = {GROUP: torch.tensor([[50.0, 0.0, 0.0]]).log_softmax(-1)}
    kept = torch.tensor([[0.7, 0.1, 0.1]])
    torch.testing.assert_close(estimator._probabilities(sure)[GROUP], kept / kept.sum())


def test_only_the_best_samples_move_alpha() -> None:
    estimator = ScoreFunction(ScoreFunctionConfig(5, best=0.5), generator(0, "samples"))
    losses = torch.tensor([[5.0], [1.0], [2.0], [3.0], [4.0]])
    assert estimator._excess(losses)[:, 0].tolist() == [0.0, -4.0, -2.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ScoreFunctionConfig(0), "0 samples per step; set 1 or more"),
        (ScoreFunctionConfig(clip=0.0), "clipped at 0.0"),
        (ScoreFunctionConfig(best=1.5), "the best 1.5 of the samples"),
    ],
)
def test_settings_out_of_range_are_refused(config: ScoreFunctionConfig, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        ScoreFunction(config, generator(0, "samples"))


def test_while_alpha_is_frozen_the_angles_train_on_samples() -> None:
    strategy = Alternating(
        restarts_space(CIRCUIT, 1),
        AlphaConfig(0.1, warmup_epochs=1),
        generator(0, "alpha"),
        estimator=ScoreFunction(ScoreFunctionConfig(8), generator(0, "samples")),
    )
    strategy.start_epoch(0)
    before = strategy.alphas()[GROUP].clone()
    update = strategy.step(step())
    assert update.weights is not None and update.weights.gradients[ANGLES].abs().sum() > 0
    assert torch.equal(strategy.alphas()[GROUP], before)
    strategy.start_epoch(1)
    strategy.step(step())
    assert not torch.equal(strategy.alphas()[GROUP], before)


def test_every_sample_has_noise_of_its_own_on_its_angles() -> None:
    objective = CircuitObjective(CIRCUIT, TARGET, AngleNoise(0.2, generator(0, "noise")))
    chosen = torch.nn.functional.one_hot(torch.zeros(200, 2, dtype=torch.int64), 3).float()
    params = {ANGLES: torch.tensor([0.9, 0.4]).repeat_interleave(3).reshape(1, 2, 3, 1).requires_grad_()}
    samples = objective.sampled(params, {GROUP: chosen})
    # ry(0.9) and ry(0.4) on qubit 0: the fidelity with (|00> + |11>) / sqrt 2 is cos((0.9 + 0.4 + noise) / 2)^2 / 2
    fidelity = 1 - samples.losses.detach()[:, 0]
    angle = 2 * torch.acos((2 * fidelity).sqrt())
    assert angle.mean() == pytest.approx(1.3, abs=0.06)
    assert angle.std() == pytest.approx(0.2 * 2**0.5, rel=0.2)


def test_the_penalties_of_the_publication() -> None:
    mix = {GROUP: torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])}
    assert repetition({}, mix) == pytest.approx(0.5 * 0.2 + 0.5 * 0.3 + 0.5)
    assert Cost(torch.tensor([1.0, 2.0, 0.0]))({}, mix) == pytest.approx(1.5 + 0.8)
    with pytest.raises(InvalidInput, match="weight of a penalty is -1"):
        Constant(repetition, -1.0)


def test_networks_for_images_can_be_searched_by_samples_too() -> None:
    def strategy() -> Alternating:
        estimator = ScoreFunction(ScoreFunctionConfig(2), generator(0, "samples"))
        return Alternating(search_space("nasbench201"), ALPHA, generator(0, "alpha"), estimator=estimator)

    found = search("dqas", "nasbench201", strategy=strategy())
    again = search("dqas", "nasbench201", strategy=strategy())
    assert set(found.genotype.groups) == set(task("nasbench201").space.groups)
    for one, other in zip(found.alphas, again.alphas, strict=True):
        assert all(torch.equal(rows, other[group]) for group, rows in one.items())
