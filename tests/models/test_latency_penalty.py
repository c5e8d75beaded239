"""The latency penalty: draws that are valid, gradients against closed forms, budgets that are met, resuming."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.images.spaces import search_space
from models.search.discretize import discretize
from models.search.gradients import Descent, Joint, Pathwise, Step, unrolled
from models.search.latency.encoding import Encoding
from models.search.latency.penalty import FIRST, Latency
from models.search.latency.predictors import Predictor
from models.search.latency.ridge import Quadratic
from models.search.latency.sampling import Drawn, Noise, Sampler
from models.search.penalties import Discretization, Rising
from models.search.random_cells import random_cell
from models.search.spaces import Edge, SearchSpace
from models.search.strategies import AlphaConfig, Alternating, sigmoid, softmax
from models.training.events import EpochEnd, Event, State
from models.training.seeds import generator
from tests.models.test_search import Interrupted, assert_identical, copied
from tests.models.tiny import config, search
from tests.models.toy import SPACE, ToyObjective, weights

pytestmark = pytest.mark.usefixtures("double")
OPS = ("none", "a", "b")
# Three edges into one node that keeps one of them.
ONE_OF_THREE = SearchSpace("s", "s", {"g": tuple(Edge(src, 3, OPS) for src in range(3))}, 1, True, True)


def additive(space: SearchSpace, costs: Tensor | None = None, bias: float = 1.0) -> Predictor:
    """A table of operations; by default, of random milliseconds from 0 to 1."""
    size = Encoding(space).size
    if costs is None:
        costs = torch.rand(size, generator=torch.Generator().manual_seed(1))
    linear = torch.zeros(size)
    linear[: len(costs)] = costs
    return Predictor("additive", [Quadratic(torch.tensor(bias), linear)])


def random_logits(space: SearchSpace, seed: int = 0, size: float = 1.0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {group: size * torch.randn(shape, generator=source) for group, shape in space.shapes().items()}


def relaxed(logits: Mapping[str, Tensor], relaxation: Any = softmax) -> dict[str, Tensor]:
    return {group: relaxation(rows) for group, rows in logits.items()}


def drawn(space: SearchSpace, logits: Mapping[str, Tensor], samples: int, relaxation: Any = softmax) -> Drawn:
    sampler = Sampler(Encoding(space))
    noise = sampler.noise(samples, torch.Generator().manual_seed(0))
    return sampler(logits, relaxed(logits, relaxation), noise)


def penalty(space: SearchSpace, predictor: Predictor | None = None, **settings: Any) -> Latency:
    return Latency(
        space, predictor or additive(space), generator(0, "latency"), **{"budget_ms": 1.5, **settings}
    )


@pytest.mark.parametrize("name", ["s1", "s3", "s5", "nasbench201"])
@pytest.mark.parametrize("relaxation", [softmax, sigmoid])
def test_without_noise_the_draw_is_the_discretization(name: str, relaxation: Any) -> None:
    space = search_space(name)
    encoding = Encoding(space)
    for seed, size in ((0, 1e-3), (1, 1.0), (2, 8.0)):
        logits = random_logits(space, seed, size)
        first = drawn(space, logits, 1, relaxation).chosen_NRO[0]
        genotype = discretize(space, relaxed(logits, relaxation))
        assert torch.equal(encoding.encode_table(first).float(), encoding.encode(genotype))


@pytest.mark.parametrize("name", ["s1", "s3", "s5", "nasbench201"])
def test_every_draw_is_an_architecture_of_the_space(name: str) -> None:
    space = search_space(name)
    chosen_NRO = drawn(space, random_logits(space), 200).chosen_NRO
    assert torch.equal(chosen_NRO, chosen_NRO.round()) and set(chosen_NRO.flatten().tolist()) == {0.0, 1.0}
    example = random_cell(space, torch.Generator().manual_seed(0))
    row = 0
    for group, edges in space.groups.items():
        rows_NEO = chosen_NRO[:, row : row + len(edges)]
        row += len(edges)
        for node in {edge.dst for edge in edges}:
            into = [place for place, edge in enumerate(edges) if edge.dst == node]
            kept = len([dst for _, dst, _ in example.groups[group] if dst == node])
            assert bool((rows_NEO[:, into].sum(dim=(1, 2)) == kept).all())
        if space.exclude_none and "none" in edges[0].ops:
            assert not rows_NEO[..., edges[0].ops.index("none")].any()
    assert len(torch.unique(chosen_NRO, dim=0)) > 100


def test_operations_are_drawn_with_their_weights_and_edges_by_their_odds() -> None:
    logits = {"g": torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.3, 0.9], [1.0, 0.0, 0.0]])}
    samples = 40_000
    found = drawn(ONE_OF_THREE, logits, samples)
    counts_RO = found.chosen_NRO[1:].sum(dim=0) / samples
    mix = softmax(logits["g"])
    strength_R = mix[:, 1:].amax(dim=1)
    odds_R = strength_R / (1 - strength_R)
    expected_RO = (odds_R / odds_R.sum())[:, None] * torch.softmax(logits["g"][:, 1:], dim=1)
    torch.testing.assert_close(counts_RO[:, 1:], expected_RO, atol=0.01, rtol=0)
    probabilities = (found.chosen_NRO[:, :, 1:] * expected_RO).sum(dim=(1, 2))
    torch.testing.assert_close(found.log_probability_N, probabilities.log(), atol=1e-9, rtol=0)


def test_the_gradient_is_that_of_the_softmax_over_what_an_edge_may_keep() -> None:
    """One edge, no noise: d ms / d alpha_o = p_o (cost_o - sum p cost), where none costs nothing."""
    space = SearchSpace("s", "s", {"g": (Edge(0, 1, OPS),)}, None, False)
    logits = {"g": torch.tensor([[0.2, 0.9, 0.1]], requires_grad=True)}
    still = Noise(torch.zeros(1, 1, 3), torch.zeros(1, 1))
    sampler = Sampler(Encoding(space))
    code = sampler.encoding.encode_table(sampler(logits, relaxed(logits), still).chosen_NRO)
    additive(space, torch.tensor([0.3, 0.5]))(code.float()).sum().backward()
    p, costs = softmax(logits["g"].detach())[0], torch.tensor([0.0, 0.3, 0.5])
    gradient = logits["g"].grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0], p * (costs - (p * costs).sum()), atol=1e-6, rtol=0)


def test_a_slow_edge_gives_way_to_a_fast_one() -> None:
    """The kept edge costs 1, the second 0.1 and the third, far behind, 0.5. None is no way out."""
    logits = {"g": torch.tensor([[-9.0, 2.0, -9.0], [-9.0, 1.9, -9.0], [9.0, 0.0, -9.0]], requires_grad=True)}
    mix = {"g": torch.tensor([[0.05, 0.9, 0.05], [0.1, 0.85, 0.05], [0.94, 0.05, 0.01]], requires_grad=True)}
    still = Noise(torch.zeros(1, 3, 3), torch.zeros(1, 3))
    sampler = Sampler(Encoding(ONE_OF_THREE))
    code = sampler.encoding.encode_table(sampler(logits, mix, still).chosen_NRO)
    predictor = additive(ONE_OF_THREE, torch.tensor([1.0, 1.0, 0.1, 0.1, 0.5, 0.5]))
    predictor(code.float()).sum().backward()
    gradient = mix["g"].grad
    assert gradient is not None
    first, second, third = gradient[:, 1].tolist()
    assert first > 0 > second, "descending keeps the second instead of the first"
    assert abs(third) < 0.2 * first


def test_the_score_function_has_the_gradient_of_the_expectation() -> None:
    """Against all cells of a small space: sum of p(cell) ms(cell), differentiated."""
    space = SearchSpace("s", "s", {"g": (Edge(0, 1, OPS), Edge(0, 2, OPS), Edge(1, 2, OPS))}, None, False)
    predictor = additive(space)
    logits = {"g": torch.tensor([[0.0, 0.5, 1.0], [0.3, 0.0, 0.2], [1.0, 0.2, 0.4]], requires_grad=True)}
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    hot = torch.nn.functional.one_hot(every, 3).double()
    ms = predictor(Encoding(space).encode_mix({"g": hot}).float()).double()
    probability = (softmax(logits["g"]) * hot).sum(dim=-1).prod(dim=-1)
    found = penalty(space, predictor, budget_ms=None, weight=1.0, mode="sf", samples=60_000)
    expected = (probability * ms).sum() / found.reference_ms
    (exact,) = torch.autograd.grad(expected, [logits["g"]])
    term = found(logits, relaxed(logits))
    assert term.item() == pytest.approx(expected.item(), rel=0.01)
    (gradient,) = torch.autograd.grad(term, [logits["g"]])
    torch.testing.assert_close(gradient, exact, atol=0.01, rtol=0)
    through = penalty(space, predictor, budget_ms=None, weight=1.0, samples=60_000)(logits, relaxed(logits))
    (biased,) = torch.autograd.grad(through, [logits["g"]])
    cosine = torch.nn.functional.cosine_similarity(biased.flatten(), exact.flatten(), dim=0)
    assert float(cosine) > 0.9


@pytest.mark.parametrize("name", ["s5", "nasbench201"])
def test_the_soft_mode_gives_the_predictor_shares(name: str) -> None:
    space = search_space(name)
    logits = random_logits(space)
    predictor = additive(space)
    found = penalty(space, predictor, budget_ms=None, weight=1.0, mode="soft", samples=1)
    term = found(logits, relaxed(logits)).item()
    encoding = Encoding(space)
    shares = encoding.table(relaxed(logits))
    if space.incoming is not None:
        shares = shares / (1 - shares[:, :1]) * (1 - torch.eye(8)[0])  # none is no choice
        chosen = drawn(space, logits, 0).chosen_NRO[0].sum(dim=-1, keepdim=True)
        shares = shares * chosen
    expected = predictor(encoding.encode_table(shares)[None].float()).item() / found.reference_ms
    assert term == pytest.approx(expected, rel=1e-5)


def test_only_what_exceeds_the_budget_is_penalized() -> None:
    space = search_space("nasbench201")
    logits = random_logits(space, size=0.1)
    generous, strict = (penalty(space, budget_ms=budget) for budget in (100.0, 0.5))
    assert float(generous(logits, relaxed(logits))) == 0.0
    assert float(strict(logits, relaxed(logits))) > 1.0
    assert generous.report(relaxed(logits))["latency_over_budget"] == 0.0
    assert strict.report(relaxed(logits))["latency_over_budget"] == 1.0


def test_the_multiplier_rises_over_the_budget_faster_and_faster_and_falls_within_it() -> None:
    space = search_space("nasbench201")
    logits = random_logits(space)
    mix = relaxed(logits)
    found = penalty(space, budget_ms=0.5)
    steps = [float(found.weight)]
    for _ in range(30):
        found(logits, mix)
        steps.append(float(found.weight))
    rises = [math.log(after / before) for before, after in pairwise(steps)]
    assert steps[0] == pytest.approx(FIRST)
    assert rises[0] == pytest.approx(0.1 * (1 + 0.1 / 2.5), rel=1e-4)
    assert all(after > before for before, after in pairwise(rises))
    found.budget_ms = 100.0
    found(logits, mix)
    assert math.log(float(found.weight) / steps[-1]) == pytest.approx(-0.025, rel=1e-4)
    fixed = penalty(space, budget_ms=0.5, weight=0.3)
    fixed(logits, mix)
    assert float(fixed.weight) == pytest.approx(0.3)


@pytest.mark.parametrize("mode", ["st", "sf", "soft"])
@pytest.mark.parametrize("name", ["s5", "nasbench201"])
def test_a_budget_is_met_against_a_loss_that_wants_slow_operations(name: str, mode: str) -> None:
    """The loss pulls alpha to the slowest operation of every edge, and the discretization penalty makes it decide."""
    space = search_space(name)
    predictor = additive(space)
    encoding = Encoding(space)
    target = random_logits(space, seed=5)
    source = torch.Generator().manual_seed(0)
    some = encoding.encode_all([random_cell(space, source) for _ in range(200)])
    budget = float(predictor(some).quantile(0.1))
    found = penalty(space, predictor, budget_ms=budget, mode=mode)
    alpha = {group: 1e-3 * rows for group, rows in random_logits(space, seed=6).items()}
    leaves = {group: rows.requires_grad_() for group, rows in alpha.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.1, betas=(0.5, 0.999), weight_decay=1e-3)
    sharpening = Rising(Discretization(space), 30.0, 20, 5)
    for epoch in range(20):
        sharpening.start_epoch(epoch)
        for _ in range(10):
            mix = relaxed(leaves)
            loss = -sum((softmax(3 * target[group]) * rows).sum() for group, rows in mix.items())
            total = loss + found.weight * found(leaves, mix) + sharpening.weight * sharpening(leaves, mix)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    ms = found.report(relaxed(leaves))["latency_ms"]
    assert ms is not None and ms <= budget * 1.001
    free = float(predictor(encoding.encode(discretize(space, relaxed(target)))[None]))
    assert free > budget, "without the penalty, the loss has its way"


ARGUMENTS: dict[str, dict[str, Any]] = {
    "first order": {},
    "second order": {"estimator": Pathwise(unrolled)},
    "joint": {"estimator": Joint(), "relaxation": sigmoid},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_it_is_added_to_the_gradient_of_every_strategy_beside_other_penalties(name: str) -> None:
    def gradient(*penalties: Any) -> tuple[Alternating, dict[str, Tensor]]:
        found = Alternating(
            SPACE,
            AlphaConfig(learning_rate=0.05, warmup_epochs=0),
            generator(0, "alpha"),
            penalties=penalties,
            **ARGUMENTS[name],
        )
        found.start_epoch(3)
        found.step(Step(weights(), ToyObjective(1), ToyObjective(2), lambda: Descent(0.1, 0.9, 3e-4, {})))
        return found, {group: rows.grad for group, rows in found.alpha.items() if rows.grad is not None}

    other = Rising(Discretization(SPACE), 2.0, 5)
    _, plain = gradient(other)
    found, both = gradient(other, penalty(SPACE))
    start = Alternating(SPACE, AlphaConfig(warmup_epochs=0), generator(0, "alpha")).alphas()
    leaves = {group: rows.requires_grad_() for group, rows in start.items()}
    term = FIRST * penalty(SPACE)(leaves, relaxed(leaves, found.relaxation))
    added = torch.autograd.grad(term, list(leaves.values()))
    assert any(bool(rows.any()) for rows in added)
    for group, rows in zip(leaves, added, strict=True):
        torch.testing.assert_close(both[group], plain[group] + rows, atol=1e-7, rtol=1e-6)


def strategy(space: SearchSpace, warmup: int = 0) -> Alternating:
    alpha = AlphaConfig(learning_rate=0.1, warmup_epochs=warmup)
    return Alternating(space, alpha, generator(0, "alpha"), penalties=[penalty(space, budget_ms=1.2)])


@pytest.mark.parametrize("name", ["s3", "nasbench201"])
def test_a_resumed_search_is_the_uninterrupted_one(name: str) -> None:
    space = search_space(name)
    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            kept.append(copied(event.state()))
            raise Interrupted

    with pytest.raises(Interrupted):
        search("darts", name, strategy=strategy(space), on_event=interrupt)
    whole = search("darts", name, strategy=strategy(space))
    assert_identical(search("darts", name, strategy=strategy(space), resume=kept[0]), whole)
    assert whole.history[-1]["latency_multiplier"] != pytest.approx(FIRST)


def test_the_history_has_columns_of_latency_and_nothing_moves_while_alpha_is_frozen() -> None:
    space = search_space("nasbench201")
    found = search("darts", "nasbench201", config(epochs=2), strategy=strategy(space, warmup=1))
    first, second = found.history
    assert first["latency_multiplier"] == pytest.approx(FIRST) and first["latency_over_budget"] is None
    assert second["latency_multiplier"] != pytest.approx(FIRST) and second["latency_over_budget"] is not None
    code = Encoding(space).encode(found.genotype)[None]
    assert second["latency_ms"] == pytest.approx(float(additive(space)(code)))
    plain = search("darts", "nasbench201")
    assert not [name for name in plain.history[0] if name.startswith("latency")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget_ms": 0.0}, "latency.budget_ms is 0.0; set a positive number of ms"),
        ({"budget_ms": -1.0}, "latency.budget_ms is -1.0"),
        ({"budget_ms": None}, "latency.budget_ms and latency.weight are null"),
        ({"weight": -0.1}, "latency.weight is -0.1"),
        ({"mode": "hard"}, "latency.mode is 'hard'; choose one of st, sf, soft"),
        ({"samples": 0}, "is 0; set 1 or more"),
        ({"samples": 1, "mode": "sf"}, "2 or more with mode sf"),
        ({"temperature": 0.0}, "latency.temperature is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        penalty(SPACE, **settings)
