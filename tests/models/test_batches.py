from __future__ import annotations

import torch

from models.images.augment import cutout
from models.images.batches import BatchStream, Preprocess, batches
from models.training.seeds import generator
from tests.models.tiny import PREPROCESS, split


def test_cutout_is_off_when_it_is_off_and_one_square_when_it_is_on() -> None:
    """Defect 5: the published schedule sets an attribute that nothing reads, so cutout is always on."""
    x, draws = torch.ones(50, 3, 8, 8), generator(0, "cutout")
    before = draws.get_state()
    assert cutout(x, 0, draws) is x and torch.equal(draws.get_state(), before)
    hidden = (cutout(x, 4, draws) == 0)[:, 0]
    rows, columns = hidden.any(dim=2).sum(dim=1), hidden.any(dim=1).sum(dim=1)
    assert torch.equal(hidden.sum(dim=(1, 2)), rows * columns), "a rectangle"
    assert rows.max() == 4 and columns.max() == 4 and rows.min() >= 2, "cut at the border"


def test_scores_are_taken_on_images_as_they_are() -> None:
    """Defect 6: the published code validates on augmented images."""
    data = split(10, 0)
    augmenting = Preprocess((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), padding=2, mirror=True, cutout=4)
    stream = BatchStream(data, 4, augmenting, generator(0, "stream"), torch.tensor([7, 1, 8, 2, 5]))
    state = stream.state_dict()["generator"].clone()
    found = torch.cat([x for x, _ in stream.in_order(2)])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (augmenting.mean, augmenting.std))
    expected = (data.images[[7, 1, 8, 2, 5]].permute(0, 3, 1, 2).float() / 255 - mean) / std
    torch.testing.assert_close(found, expected)
    assert torch.equal(stream.state_dict()["generator"], state), "nothing is taken from the stream"
    torch.testing.assert_close(torch.cat([y for _, y in batches(data, 3, augmenting)]), data.labels)


def test_streams_are_seeded_and_go_on_where_they_were() -> None:
    """Defect 3: the published loaders are unseeded."""
    one, two = (BatchStream(split(10, 0), 4, PREPROCESS, generator(0, "stream")) for _ in range(2))
    for _ in range(3):
        assert torch.equal(next(one)[0], next(two)[0])
    other = BatchStream(split(10, 0), 4, PREPROCESS, generator(1, "stream"))
    other.load_state_dict(one.state_dict())
    for _ in range(3):
        for mine, resumed in zip(next(two), next(other), strict=True):
            assert torch.equal(mine, resumed)
