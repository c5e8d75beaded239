from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.landscape import Landscape, directions, landscape
from models.training.events import Event, Measuring

Points = Sequence[Mapping[str, Tensor]]

pytestmark = pytest.mark.usefixtures("double")
ALPHAS = {
    "one": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "two": torch.full((1, 2), 5.0, dtype=torch.float64),
}


def bowl(points: Points) -> Tensor:
    """7 at alpha, more by the mean square of the change elsewhere."""

    def height(at: Mapping[str, Tensor]) -> Tensor:
        return (
            7.0
            + torch.cat([(at[group] - alpha).flatten() for group, alpha in ALPHAS.items()]).square().mean()
        )

    return torch.stack([height(at) for at in points])


def test_a_round_bowl_has_known_heights() -> None:
    found = landscape(bowl, ALPHAS, points=5, radius=2.0)
    assert found.offsets.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    offsets = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    expected = (
        7.0 + offsets[:, None] ** 2 + offsets**2
    )  # only if directions are at right angles and of length 1
    torch.testing.assert_close(found.losses, expected)
    assert found.center == 7.0
    # The rim: 4 corners at a height of 8, and on each of 4 sides the heights 5, 4 and 5.
    assert found.rise == pytest.approx((4 * 8 + 4 * (5 + 4 + 5)) / 16)


def test_a_slope_is_seen_along_its_own_direction_only() -> None:
    first, second = directions(ALPHAS, seed=3)

    def slope(points: Points) -> Tensor:
        return torch.stack([sum_of(at) for at in points])

    def sum_of(at: Mapping[str, Tensor]) -> Tensor:
        parts = [((at[group] - alpha) * first[group]).sum() for group, alpha in ALPHAS.items()]
        return torch.stack(parts).sum() / 8

    losses = landscape(slope, ALPHAS, points=3, seed=3).losses
    torch.testing.assert_close(losses, torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 3))
    lengths = [torch.cat([part.flatten() for part in way.values()]).norm() for way in (first, second)]
    torch.testing.assert_close(torch.stack(lengths), torch.full((2,), 8.0).sqrt())


def test_the_seed_decides_the_plane_and_the_global_generator_has_no_part() -> None:
    def losses(points: Points) -> Tensor:
        return torch.stack([at["one"].sum() + at["two"].square().sum() for at in points])

    before = torch.get_rng_state()
    one, same, other = (landscape(losses, ALPHAS, points=3, seed=seed).losses for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, same) and not torch.allclose(one, other)


def test_rows_hold_all_of_it_and_each_pass_is_reported() -> None:
    heard: list[Event] = []
    found = landscape(bowl, ALPHAS, points=3, on_event=heard.append)
    assert [event.done for event in heard if isinstance(event, Measuring)] == [1, 2, 3]
    assert found.rows()[1] == {"first": -1.0, "second": 0.0, "loss": pytest.approx(8.0)}
    again = Landscape.of_rows(found.rows())
    assert torch.equal(again.losses, found.losses) and torch.equal(again.offsets, found.offsets)


@pytest.mark.parametrize("points", [0, 1, 4])
def test_a_grid_without_a_middle_is_refused(points: int) -> None:
    with pytest.raises(InvalidInput, match="odd"):
        landscape(bowl, ALPHAS, points=points)
