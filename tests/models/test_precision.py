"""bfloat16 passes: losses near those of float32, everything that is kept or measured in float32, resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from models.images.batches import BatchStream, batches
from models.images.retrain import RetrainConfig, Retraining
from models.images.search import SupernetConfig, image_search
from models.images.spaces import search_space
from models.search.gradients import Descent, Step, unrolled
from models.search.objective import BatchObjective, leaves
from models.search.program import Loaders, Search
from models.search.signs import discretization_gap
from models.search.strategies import AlphaConfig
from models.training import precision
from models.training.evaluation import evaluate
from models.training.events import EpochEnd, Event, State, silent
from models.training.loop import run
from models.training.seeds import generator
from tests.models import tiny
from tests.models.processes import BENCHMARK, DARTS, Interrupted, copied, enlarged, repeatable
from tests.models.tiny import PREPROCESS, STRATEGIES, config, split, task

# Largest relative difference of a loss from that of float32, over two epochs of four steps. Measured: at most 0.75%
# in the searches below and 1.3% in the retrainings.
TOLERANCE = 0.03
# Relative difference (2-norms) of the gradients of one pass. Measured: at most 0.2, because the batch norms of images
# this small divide by the spread of few numbers.
GRADIENT_TOLERANCE = 0.35
SPACES = ("s4", "s5", "nasbench201")  # s4: noise
SEARCHES = [f"{space}/{name}" for space in SPACES for name in ("darts", "ms-darts", "single-level")]
LOW, FULL = torch.bfloat16, torch.float32


def stream(images: int, seed: int) -> BatchStream:
    return BatchStream(split(images, seed), 16, PREPROCESS, generator(0, f"stream {seed}"))


def searching(case: str, type_: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Two epochs of four steps. The rate of alpha is low, because Adam makes full steps of gradients near zero."""
    space, _, name = case.partition("/")
    monkeypatch.setattr(tiny, "ALPHA", AlphaConfig(learning_rate=0.01, warmup_epochs=0))
    loaders = Loaders(
        stream(64, 1),
        None if name.startswith("single") else stream(64, 2),
        lambda: batches(split(64, 2), 16, PREPROCESS),
        lambda: batches(split(64, 1), 16, PREPROCESS),
    )
    return image_search(
        task(space),
        STRATEGIES[name](search_space(space), 2),
        loaders,
        config(learning_rate=0.01),
        SupernetConfig(channels=4, cells=tiny.size(space).cells),
        precision=type_,
    )


def retraining(which: str, type_: torch.dtype) -> Retraining:
    """Two epochs of four steps; the network of DARTS has an auxiliary head."""
    genotype, side = {"darts": (DARTS, 32), "nasbench201": (BENCHMARK, 8)}[which]
    free = task("s5" if which == "darts" else "nasbench201")
    free.image_size = side
    network = free.network(genotype, channels=4, cells=3, auxiliary=True)
    return Retraining(
        network,
        BatchStream(enlarged(split(64, 1), side), 16, PREPROCESS, generator(0, "train")),
        lambda: batches(enlarged(split(16, 2), side), 16, PREPROCESS),
        RetrainConfig(epochs=2, learning_rate=0.01, drop_path=0.3, label_smoothing=0.1),
        generator(0, "drop path"),
        precision=type_,
    )


def differences(full: Any, low: Any) -> dict[str, float]:
    """Loss -> the largest relative difference over the epochs."""
    columns = [name for name, value in full.history[0].items() if "loss" in name and value is not None]
    return {
        name: max(abs(b[name] - a[name]) / a[name] for a, b in zip(full.history, low.history, strict=True))
        for name in columns
    }


@pytest.mark.parametrize("case", SEARCHES)
def test_the_losses_of_a_search_stay_near_those_of_float32(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, low = (run(searching(case, type_, monkeypatch)) for type_ in (FULL, LOW))
    found = differences(full, low)
    assert len(found) == 3
    assert 0 < max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("which", ["darts", "nasbench201"])
def test_the_losses_of_a_retraining_stay_near_those_of_float32(which: str) -> None:
    full, low = (run(retraining(which, type_)) for type_ in (FULL, LOW))
    found = differences(full, low)
    assert len(found) == 2
    assert 0 < max(found.values()) < TOLERANCE, found


def noise_anew(objective: BatchObjective, seed: int = 0) -> BatchObjective:
    """The objective; its network draws from the seed again, so that all passes see the same noise."""
    for source in objective.criterion.generators.values():  # pyright: ignore[reportAttributeAccessIssue]
        source.manual_seed(seed)
    return objective


@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_whole_and_near_those_of_float32(space: str) -> None:
    """Also after a pass without gradients, whose converted weights lead no gradient back."""
    free = task(space)
    supernet = free.supernet(channels=4, cells=tiny.size(space).cells)
    batch, params = next(stream(64, 1)), dict(supernet.named_parameters())
    alphas = STRATEGIES["darts"](free.space, 2)
    mix = {group: rows.detach() for group, rows in alphas.mix().items()}
    found: dict[torch.dtype, dict[str, Tensor]] = {}
    for type_ in (FULL, LOW):
        objective = BatchObjective(free, supernet, *batch, type_)
        losses = noise_anew(objective).probe(params, [mix, mix])
        assert losses.dtype == torch.float32 and torch.equal(losses[0], losses[1])
        inputs = {**params, **leaves(mix)}
        output = noise_anew(objective).output(params, {group: inputs[group] for group in mix})
        assert output.dtype == torch.float32
        gradients = torch.autograd.grad(
            free.loss(output, batch[1]), list(inputs.values()), materialize_grads=True
        )
        found[type_] = dict(zip(inputs, gradients, strict=True))
    assert all(gradient.dtype == torch.float32 for gradient in found[LOW].values())
    apart = torch.stack([(found[LOW][name] - exact).norm() for name, exact in found[FULL].items()]).norm()
    size = torch.stack([exact.norm() for exact in found[FULL].values()]).norm()
    assert 0 < apart < GRADIENT_TOLERANCE * size, apart / size
    assert all(found[LOW][name].any() for name, exact in found[FULL].items() if exact.any())


def test_the_architecture_step_of_second_order_darts_is_that_of_float32() -> None:
    free = task("nasbench201")
    supernet = free.supernet(channels=4, cells=1)
    params = dict(supernet.named_parameters())
    mix = {group: rows.detach() for group, rows in STRATEGIES["darts"](free.space, 2).mix().items()}
    one, other = next(stream(64, 1)), next(stream(64, 2))

    def step(type_: torch.dtype) -> Step:
        train, valid = (BatchObjective(free, supernet, *batch, type_) for batch in (one, other))
        return Step(params, train, valid, lambda: Descent(0.1, 0.9, 3e-4, {}))

    (loss, full), (low_loss, low) = (unrolled(mix, step(type_)) for type_ in (FULL, LOW))
    assert torch.equal(loss, low_loss) and torch.equal(full["cell"], low["cell"])


def tensors(state: Any) -> list[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(state, dict | list | tuple):
        parts = state.values() if isinstance(state, dict) else state
        return [tensor for part in parts for tensor in tensors(part)]
    return [state] if isinstance(state, Tensor) else []


PROGRAMS: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "search": partial(searching, "s4/ms-darts", LOW),
    "retrain": lambda _: retraining("darts", LOW),
}


@pytest.mark.parametrize("which", PROGRAMS)
def test_all_that_is_kept_is_float32_and_a_resumed_training_is_the_same(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            kept.append(copied(event.state()))
            raise Interrupted

    whole = run(PROGRAMS[which](monkeypatch))
    with pytest.raises(Interrupted):
        run(PROGRAMS[which](monkeypatch), on_event=interrupt)
    floating = [tensor for tensor in tensors(kept[0]) if tensor.is_floating_point()]
    assert len(floating) > 20 and {tensor.dtype for tensor in floating} == {torch.float32}
    resumed = run(PROGRAMS[which](monkeypatch), resume=kept[0])
    assert repeatable(resumed.history) == repeatable(whole.history)
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())


def test_the_epochs_are_measured_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bfloat16 search measures at its last weights is what float32 measures there."""
    low = searching("s5/darts", LOW, monkeypatch)
    low.config = config(learning_rate=0.01, curvature_cases=16)
    found = run(low)
    last, mix = found.history[-1], {group: rows.detach() for group, rows in low.strategy.mix().items()}
    exact = searching("s5/darts", FULL, monkeypatch)
    exact.supernet.load_state_dict(found.weights)

    def output(x: Tensor) -> Tensor:
        return exact.supernet(x, mix)

    score = evaluate(exact.supernet, output, exact.loaders.valid(), exact.domain)
    assert (last["valid_loss"], last["valid_accuracy"]) == (score["loss"], score["accuracy"])
    gap = discretization_gap(exact.domain, exact.supernet, mix, exact.loaders)
    assert gap.items() <= found.summary.items()
    exact.config, exact.strategy = low.config, low.strategy
    eigenvalue = exact._hessian_eigenvalue(found.alphas[-1], silent)
    assert eigenvalue.value == found.summary["hessian_eigenvalue"]


@pytest.mark.parametrize("cuda", [False, True])
def test_auto_is_bfloat16_on_cuda_only(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert precision.resolved("auto") == ("bfloat16" if cuda else "float32")
    assert precision.type_of("auto") == (LOW if cuda else FULL)
    assert [precision.type_of(name) for name in ("float32", "bfloat16")] == [FULL, LOW]
