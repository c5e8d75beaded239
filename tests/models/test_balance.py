"""Class weights in the loss and in the score, compared with numbers computed by hand and with repeated images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.images.balance import WithBalancedAccuracy, balanced_weights
from models.images.batches import BatchStream, batches
from models.images.retrain import Classification, RetrainConfig, Retraining
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.training.evaluation import evaluate
from models.training.seeds import generator
from tests.models.processes import DARTS, enlarged
from tests.models.tiny import CLASSES, PREPROCESS, split

LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 3])  # six, two, none and one of nine images


def test_weights_by_hand() -> None:
    weights = balanced_weights(LABELS, 4)  # N = 9 and K = 3, because class 2 has no images
    torch.testing.assert_close(weights, torch.tensor([9 / 18, 9 / 6, 0, 9 / 3], dtype=torch.float64))
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    assert torch.equal(balanced_weights(torch.tensor([2, 1, 0]), 3), torch.ones(3, dtype=torch.float64))


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [math.log(4), 0.0], [math.log(4), 0.0]])
    labels = torch.tensor([1, 0, 0, 0])
    weights = balanced_weights(labels, 2).float()  # 4 / (2 * 3) and 4 / (2 * 1)
    expected = (2 * math.log(4 / 3) + 2 / 3 * (math.log(2) + 2 * math.log(5 / 4))) / 4
    assert float(Classification(0.0, weights).loss(logits, labels)) == pytest.approx(expected)
    assert float(Classification().loss(logits, labels)) != pytest.approx(expected)


def test_loss_with_label_smoothing_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]]), torch.tensor([1, 0])
    likely, unlikely = -math.log(3 / 4), -math.log(1 / 4)
    smoothed = [0.9 * likely + 0.1 * unlikely, 0.1 * likely + 0.9 * unlikely]  # smoothing of 0.2
    expected = (0.5 * smoothed[0] + 3 * smoothed[1]) / 2
    criterion = Classification(0.2, torch.tensor([3.0, 0.5]))
    assert float(criterion.loss(logits, labels)) == pytest.approx(expected)


def test_the_balanced_loss_is_the_mean_of_the_losses_of_the_classes() -> None:
    logits = torch.randn(len(LABELS), 4, generator=torch.Generator().manual_seed(0))
    weights = balanced_weights(LABELS, 4).float()
    inside = [LABELS.eq(number) for number in (0, 1, 3)]
    by_class = [Classification(0.1).loss(logits[where], LABELS[where]) for where in inside]
    balanced = Classification(0.1, weights).loss(logits, LABELS)
    torch.testing.assert_close(balanced, torch.stack(by_class).mean())


@pytest.mark.parametrize("weighted", [False, True])
def test_both_heads_are_trained_on_the_weighted_loss(weighted: bool) -> None:
    large = ImageTask(search_space("s5"), (32, 32, 3), CLASSES, seed=0)
    network = large.network(DARTS, channels=2, cells=3, auxiliary=True)
    images = enlarged(split(8, 1), 32)
    weights = torch.arange(1.0, CLASSES + 1) if weighted else None
    program = Retraining(
        network,
        BatchStream(images, len(images), PREPROCESS, generator(0, "train")),
        lambda: batches(images, 4, PREPROCESS),
        RetrainConfig(epochs=2, learning_rate=0.0, drop_path=0.0, label_smoothing=0.1, gradient_clip=1e9),
        generator(0, "drop path"),
        class_weights=weights,
    )
    program.start_epoch(0)
    program.step()
    found = {name: weight.grad for name, weight in network.named_parameters()}

    stream = BatchStream(images, len(images), PREPROCESS, generator(0, "train"))
    x, labels = next(stream)
    network.zero_grad()
    loss: Any = 0.0
    for logits, share in zip(network(x), (1.0, 0.4), strict=True):
        loss = loss + share * sum(map(by_hand, logits, labels, [weights] * len(labels))) / len(labels)
    loss.backward()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-3, atol=1e-6)


def by_hand(logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
    """The smoothed and weighted cross-entropy of one image."""
    log_probabilities = logits - torch.logsumexp(logits, 0)
    target = torch.full((CLASSES,), 0.1 / CLASSES)
    target[label] += 0.9
    return -(target * log_probabilities).sum() * (1 if weights is None else weights[label])


def test_balanced_accuracy_is_the_mean_of_the_recalls_over_any_batches() -> None:
    predicted = torch.tensor([0, 0, 0, 1, 1, 0, 1, 0, 3])  # recalls 4/6, 1/2, none and 1
    logits = torch.eye(4)[predicted]
    criterion = WithBalancedAccuracy(Classification(), balanced_weights(LABELS, 4))
    for size in (1, 4, 9):
        pairs = list(zip(logits.split(size), LABELS.split(size), strict=True))
        found = evaluate(torch.nn.Identity(), lambda x: x, pairs, criterion)
        assert found["balanced_accuracy"] == pytest.approx((4 / 6 + 1 / 2 + 1) / 3)
        assert found["accuracy"] == pytest.approx(6 / 9)
        assert found["loss"] == pytest.approx(float(Classification().loss(logits, LABELS)))
