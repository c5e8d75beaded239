"""The moving average against its closed form, and what a training does with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.images.batches import BatchStream, batches
from models.images.ops.norm import BatchNorm
from models.images.retrain import Classification, RetrainConfig, Retraining
from models.training.averaging import MovingAverage
from models.training.evaluation import evaluate
from models.training.loop import run
from models.training.schedules import warmed_up
from models.training.seeds import generator
from tests.models.processes import BENCHMARK
from tests.models.tiny import PREPROCESS, split, task


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_its_closed_form(decay: float) -> None:
    """Weight t counts (1 - d_t) times the product of all later d; the initial weights, the product of all."""
    module = nn.Linear(1, 1, bias=False).double()
    values = np.random.default_rng(0).normal(size=41)
    module.weight.data.fill_(values[0])
    average = MovingAverage(module, decay)
    for value in values[1:]:
        module.weight.data.fill_(value)
        average.update(module)
    decays = [1.0, *(min(decay, (1 + t) / (10 + t)) for t in range(1, 41))]
    later = [float(np.prod(decays[t + 1 :])) for t in range(41)]
    shares = [later[0], *((1 - decays[t]) * later[t] for t in range(1, 41))]
    assert sum(shares) == pytest.approx(1)
    assert float(average.average["weight"]) == pytest.approx(float(np.dot(shares, values)))


def test_the_initial_weights_are_forgotten_within_forty_steps() -> None:
    """(1 + t) / (10 + t) telescopes: after T steps they count 10! / ((T + 2) ... (T + 10))."""
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(1.0)
    average = MovingAverage(module, 0.9999)
    module.weight.data.fill_(0.0)
    for _ in range(40):
        average.update(module)
    expected = np.prod(range(2, 11)) / np.prod([float(40 + k) for k in range(2, 11)])
    assert float(average.average["weight"]) == pytest.approx(expected, rel=1e-9)
    assert expected < 1e-8


def test_the_module_has_the_average_inside_the_block_only_and_the_state_goes_on() -> None:
    module = nn.Linear(2, 2)
    average, own = MovingAverage(module, 0.5), module.weight.detach().clone()
    module.weight.data.add_(1)
    average.update(module)
    with average.in_place(module):
        torch.testing.assert_close(module.weight.detach(), own + 1 - 2 / 11)
    torch.testing.assert_close(module.weight.detach(), own + 1)
    other = MovingAverage(nn.Linear(2, 2), 0.5)
    other.load_state_dict(average.state_dict())
    for each in (average, other):
        each.update(module)
    assert torch.equal(other.average["weight"], average.average["weight"])
    assert other.average["weight"].data_ptr() != average.average["weight"].data_ptr()


def retraining(ema_decay: float) -> Retraining:
    data, held_out = split(32, 1), split(12, 2)
    return Retraining(
        task("nasbench201").network(BENCHMARK, channels=2, cells=1),
        BatchStream(data, 4, PREPROCESS, generator(0, "train")),
        lambda: batches(held_out, 5, PREPROCESS),
        RetrainConfig(epochs=1, learning_rate=0.1, ema_decay=ema_decay),
        generator(0, "drop path"),
        calibration=lambda: batches(data, 8, PREPROCESS),
    )


def test_the_average_is_validated_and_kept_with_statistics_of_its_own() -> None:
    program = retraining(0.9)
    found = run(program)
    assert program.average is not None
    for name, weight in program.average.average.items():
        assert torch.equal(found.weights[name], weight), name
    last = retraining(0.0)
    assert any(
        not torch.equal(run(last).weights[name], weight) for name, weight in program.average.average.items()
    )
    score = evaluate(
        program.network, lambda x: program.network(x)[0], program.valid(), Classification()
    )  # the network holds what is kept
    assert (found.history[0]["valid_loss"], found.history[0]["valid_accuracy"]) == (
        score["loss"],
        score["accuracy"],
    )

    convolution, norm = first_layers(program.network)
    means = [
        convolution(x).mean(dim=(0, 2, 3)) for x, _ in batches(split(32, 1), 8, PREPROCESS)
    ]  # of the images as they are, under the averaged weights
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(dim=0).detach())


def first_layers(network: nn.Module) -> tuple[nn.Conv2d, BatchNorm]:
    layers = list(network.modules())
    (convolution,) = [layer for layer in layers if isinstance(layer, nn.Conv2d)][:1]
    (norm,) = [layer for layer in layers if isinstance(layer, BatchNorm)][:1]
    return convolution, norm


def test_training_goes_on_from_its_own_weights_and_statistics() -> None:
    """Whether weights are averaged changes nothing but what is validated and kept."""
    programs = [retraining(decay) for decay in (0.9, 0.0)]
    for program in programs:
        for _ in range(program.start_epoch(0)):
            program.step()
        program.end_epoch([], lambda _: None)
        program.stream.close()
    averaged, plain = (program.network.state_dict() for program in programs)
    assert all(torch.equal(averaged[name], value) for name, value in plain.items())
    assert programs[0].network.training == programs[1].network.training


def test_the_rate_rises_in_equal_parts_and_then_follows_the_cosine() -> None:
    rates = [warmed_up(0.4, epoch, 10, 3) for epoch in range(10)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[3:] == pytest.approx([0.2 * (1 + np.cos(np.pi * epoch / 7)) for epoch in range(7)])
    assert warmed_up(0.4, 0, 10, 0) == 0.4
