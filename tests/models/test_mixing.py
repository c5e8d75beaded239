"""Mixed images and labels against interpolations computed by hand, and their random shares against scipy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from models.images.mixing import MixedLabels, Mixing, boxes, mixing, symmetric_beta
from models.images.retrain import Classification
from models.training.seeds import generator

SIZE = 256
LABELS = torch.arange(SIZE)


def mixed(mixup: float, cutmix: float, probability: float = 1.0) -> tuple[torch.Tensor, MixedLabels]:
    """A batch whose image i has the value i everywhere, mixed."""
    x = LABELS.double()[:, None, None, None].expand(SIZE, 2, 12, 10).clone()
    made = mixing(mixup, cutmix, probability, generator(0, "mixing"))
    assert made is not None
    return made(x, LABELS)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_an_image_is_mixed_in_the_shares_of_its_labels(mixup: float, cutmix: float) -> None:
    x, labels = mixed(mixup, cutmix)
    expected = labels.share * labels.first + (1 - labels.share) * labels.second
    torch.testing.assert_close(x.mean(dim=(1, 2, 3)), expected)
    assert torch.equal(labels.first, LABELS) and torch.equal(labels.second.sort().values, LABELS)
    blended = (x.amax(dim=(1, 2, 3)) == x.amin(dim=(1, 2, 3))) & (labels.share < 1)
    share = float(blended.double().mean())
    assert share == pytest.approx((mixup > 0) / ((mixup > 0) + (cutmix > 0)), abs=0.1)


def test_the_box_of_cutmix_is_a_rectangle_of_the_other_image() -> None:
    x, labels = mixed(0.0, 1.0)
    foreign = x[:, 0] == labels.second[:, None, None]
    assert torch.equal(foreign | (x[:, 0] == LABELS[:, None, None]), torch.ones_like(foreign))
    rows, columns = foreign.any(dim=2).sum(dim=1), foreign.any(dim=1).sum(dim=1)
    assert torch.equal(foreign.sum(dim=(1, 2)), rows * columns)


def test_boxes_by_hand() -> None:
    share, middle = torch.tensor([0.75, 0.75, 1.0, 0.0]), torch.tensor([0.5, 0.0, 0.5, 0.5])
    found = boxes(share, middle, middle, (8, 8))
    assert found.sum(dim=(1, 2)).tolist() == [16, 4, 0, 64], (
        "half of either side, and a quarter of it in a corner"
    )
    assert found[0, 2:6, 2:6].all() and found[1, :2, :2].all()


def test_images_are_mixed_with_the_probability_asked_for() -> None:
    x, labels = mixed(0.0, 1.0, probability=0.3)
    left = labels.share == 1
    assert float(left.double().mean()) == pytest.approx(0.7, abs=0.08)
    assert torch.equal(x[left, 0, 0, 0], LABELS[left].double())
    assert mixing(0.0, 0.0, 1.0, generator(0, "mixing")) is None


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    found = symmetric_beta(alpha, 4000, generator(0, "beta"))
    assert found.min() >= 0 and found.max() <= 1
    assert float(found.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    assert stats.kstest(found.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_labels_is_that_of_the_mixed_one_hot_labels(smoothing: float) -> None:
    source = generator(0, "logits")
    logits, share = torch.randn(6, 4, generator=source), torch.rand(6, generator=source)
    labels = MixedLabels(torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 1, 0, 2, 3, 0]), share)
    target = share[:, None] * F.one_hot(labels.first, 4) + (1 - share[:, None]) * F.one_hot(labels.second, 4)
    found = Classification(smoothing).loss(logits, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits, target, label_smoothing=smoothing))

    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    if smoothing == 0:
        by_hand = -(weights * target * F.log_softmax(logits, dim=1)).sum() / 6
    else:
        one_hot = Classification(smoothing, weights)
        each = [
            share[i] * one_hot.loss(logits[i : i + 1], labels.first[i : i + 1])
            + (1 - share[i]) * one_hot.loss(logits[i : i + 1], labels.second[i : i + 1])
            for i in range(6)
        ]
        by_hand = torch.stack(each).mean()
    torch.testing.assert_close(Classification(smoothing, weights).loss(logits, labels), by_hand)


def test_right_answers_count_by_their_share() -> None:
    labels = MixedLabels(torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0]), torch.tensor([0.7, 0.2, 0.4]))
    found = Classification().measures(torch.eye(3)[[0, 1, 0]], labels)
    assert float(found["accuracy"]) == pytest.approx(0.7 + 1.0 + 0.6)


def test_the_state_of_the_generator_is_all_that_mixing_remembers() -> None:
    x = torch.rand(8, 3, 8, 8, generator=generator(0, "images"))
    one = Mixing(0.2, 1.0, 0.5, generator(0, "mixing"))
    one(x, LABELS[:8])
    other = Mixing(0.2, 1.0, 0.5, generator(1, "mixing"))
    other.generator.set_state(one.generator.get_state())
    (mine, labels), (resumed, again) = one(x, LABELS[:8]), other(x, LABELS[:8])
    assert torch.equal(mine, resumed) and torch.equal(labels.share, again.share)
