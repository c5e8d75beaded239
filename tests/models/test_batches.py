from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.images.augment import ERASED_AREA, cutout, random_erasing
from models.images.batches import BatchStream, Preprocess, batches
from models.training.seeds import generator
from tests.models.tiny import PREPROCESS, split

STRONG = replace(PREPROCESS, cutout=2, random_erasing=0.5, randaugment=2, randaugment_magnitude=9.0)


def test_cutout_is_off_when_it_is_off_and_one_square_when_it_is_on() -> None:
    """Defect 5: the published schedule sets an attribute that nothing reads, so cutout is always on."""
    x, draws = torch.ones(50, 3, 8, 8), generator(0, "cutout")
    before = draws.get_state()
    assert cutout(x, 0, draws) is x and torch.equal(draws.get_state(), before)
    hidden = (cutout(x, 4, draws) == 0)[:, 0]
    rows, columns = hidden.any(dim=2).sum(dim=1), hidden.any(dim=1).sum(dim=1)
    assert torch.equal(hidden.sum(dim=(1, 2)), rows * columns), "a rectangle"
    assert rows.max() == 4 and columns.max() == 4 and rows.min() >= 2, "cut at the border"


def test_erasing_takes_a_rectangle_of_the_published_area() -> None:
    x, draws = torch.ones(2000, 1, 40, 40), generator(0, "erasing")
    before = draws.get_state()
    assert random_erasing(x, 0.0, draws) is x and torch.equal(draws.get_state(), before)
    gone = (random_erasing(x, 0.5, draws) == 0)[:, 0]
    gone = gone[gone.any(dim=2).any(dim=1)]
    assert len(gone) == pytest.approx(1000, abs=100)
    rows, columns = gone.any(dim=2).sum(dim=1), gone.any(dim=1).sum(dim=1)
    assert torch.equal(gone.sum(dim=(1, 2)), rows * columns), "a rectangle"
    whole = (rows < 40) & (columns < 40)  # not cut to the side of the image
    area = (rows * columns / 1600)[whole]
    assert area.min() > 0.8 * ERASED_AREA[0] and area.max() < 1.1 * ERASED_AREA[1], "up to rounding"
    assert float(whole.float().mean()) > 0.8
    assert float((rows * columns / 1600).mean()) == pytest.approx(sum(ERASED_AREA) / 2, abs=0.02)
    ratio = (rows / columns)[whole].log()
    assert abs(float(ratio.mean())) < 0.06 and ratio.abs().max() < 1.4, "as often wide as high"
    corners = gone[:, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean(dim=0)
    assert corners.min() > 0.4 * corners.max(), "anywhere"


def test_scores_are_taken_on_images_as_they_are() -> None:
    """Defect 6: the published code validates on augmented images."""
    data = split(10, 0)
    augmenting = Preprocess((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), padding=2, mirror=True, cutout=4)
    augmenting = replace(augmenting, random_erasing=1.0, randaugment=2, randaugment_magnitude=9.0)
    stream = BatchStream(data, 4, augmenting, generator(0, "stream"), torch.tensor([7, 1, 8, 2, 5]))
    state = stream.state_dict()["generator"].clone()
    found = torch.cat([x for x, _ in stream.in_order(2)])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (augmenting.mean, augmenting.std))
    expected = (data.images[[7, 1, 8, 2, 5]].permute(0, 3, 1, 2).float() / 255 - mean) / std
    torch.testing.assert_close(found, expected)
    assert torch.equal(stream.state_dict()["generator"], state), "nothing is taken from the stream"
    torch.testing.assert_close(torch.cat([y for _, y in batches(data, 3, augmenting)]), data.labels)


@pytest.mark.parametrize("preprocess", [PREPROCESS, STRONG])
def test_streams_are_seeded_and_go_on_where_they_were(preprocess: Preprocess) -> None:
    """Defect 3: the published loaders are unseeded."""
    one, two = (BatchStream(split(10, 0), 4, preprocess, generator(0, "stream")) for _ in range(2))
    for _ in range(3):
        assert torch.equal(next(one)[0], next(two)[0])
    other = BatchStream(split(10, 0), 4, preprocess, generator(1, "stream"))
    other.load_state_dict(one.state_dict())
    for _ in range(3):
        for mine, resumed in zip(next(two), next(other), strict=True):
            assert torch.equal(mine, resumed)
