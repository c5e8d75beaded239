"""The images on which the statistics of averaged weights are measured: augmented, whole batches, the same each time."""

from __future__ import annotations

import pytest
import torch

from models.images.batches import Preprocess, Split
from stages.images.data import ImageCard
from stages.images.params import Params
from stages.images.training.inputs import CALIBRATION_IMAGES, Images, calibration
from stages.plumbing.settings import load
from tests.models.tiny import PREPROCESS, split
from tests.stages.conftest import ROOT

CARD = ImageCard(
    name="npz",
    classes=["a", "b", "c"],
    image_shape=(8, 8, 3),
    counts={},
    mean=[0.5] * 3,
    std=[0.25] * 3,
    mirror=True,
    sha256="",
)


@pytest.mark.parametrize(("images", "batches"), [(5000, CALIBRATION_IMAGES // 64), (150, 2), (40, 1)])
def test_batches_are_whole_and_the_same_each_time(images: int, batches: int) -> None:
    params, train = load(ROOT / "params.yaml"), split(images, 1)
    assert isinstance(params, Params)
    data = Images(train, split(3, 2), CARD)
    first, again = (list(calibration(data, PREPROCESS, params.retrain)) for _ in range(2))
    assert [len(x) for x, _ in first] == [min(64, images)] * batches
    assert all(torch.equal(x, other) for (x, _), (other, _) in zip(first, again, strict=True))


def test_images_are_augmented() -> None:
    params = load(ROOT / "params.yaml")
    assert isinstance(params, Params)
    white = Split(torch.full((64, 8, 8, 3), 255, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))
    ((x, _),) = calibration(
        Images(white, white, CARD), Preprocess((0.0,) * 3, (1.0,) * 3, padding=1), params.retrain
    )
    assert set(x.unique().tolist()) == {0.0, 1.0}, "black comes in at the border"
