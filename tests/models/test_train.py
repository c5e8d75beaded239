from __future__ import annotations

import pytest
import torch

from models.images.batches import BatchStream, batches
from models.images.retrain import Classification, RetrainConfig, Retraining
from models.search.discretize import discretize
from models.search.strategies import AlphaConfig, Alternating
from models.training.evaluation import evaluate
from models.training.events import EpochEnd, Event, State
from models.training.loop import run
from models.training.seeds import generator
from models.training.trained import Trained
from tests.models.processes import Interrupted, copied, repeatable
from tests.models.tiny import PREPROCESS, loaders, split, task


def trained(space: str, **arguments: object) -> tuple[Trained, torch.nn.Module]:
    free = task(space)
    alphas = Alternating(free.space, AlphaConfig(), generator(0, "alpha"))
    network = free.network(discretize(free.space, alphas.mix()), channels=4, cells=3)
    stream = loaders(images=12).train
    assert isinstance(stream, BatchStream)
    held_out = split(12, 3)
    program = Retraining(
        network,
        stream,
        lambda: batches(held_out, 5, PREPROCESS),
        RetrainConfig(epochs=4, learning_rate=0.1),
        generator(0, "drop path"),
    )
    return run(program, **arguments), network  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("space", ["s2", "nasbench201"])
def test_the_weights_kept_are_those_of_the_best_validation_accuracy(space: str) -> None:
    """Defect 9: the published code picks the best weights on the test set, which this training never sees."""
    found, network = trained(space)
    accuracies = [row["valid_accuracy"] for row in found.history]
    assert found.best_epoch == 1 + accuracies.index(max(accuracies))  # pyright: ignore[reportArgumentType]
    score = evaluate(network, lambda x: network(x)[0], batches(split(12, 3), 5, PREPROCESS), Classification())
    assert score["accuracy"] == max(accuracies)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("space", ["s2", "nasbench201"])
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(space: str) -> None:
    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 2:
            kept.append(copied(event.state()))
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(space, on_event=interrupt)
    resumed, _ = trained(space, resume=kept[0])
    whole, _ = trained(space)
    assert repeatable(resumed.history) == repeatable(whole.history)
    assert resumed.best_epoch == whole.best_epoch
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())
