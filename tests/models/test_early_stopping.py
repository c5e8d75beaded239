from __future__ import annotations

import pytest

from models.errors import InvalidInput
from models.search.early_stopping import EigenvalueRise, SkipConnections
from models.training.events import Row


def eigenvalues(*values: float) -> list[Row]:
    return [{"hessian_eigenvalue": value} for value in values]


def skips(*values: int) -> list[Row]:
    return [{"skip_connects_normal": value} for value in values]


def test_a_rise_of_the_mean_eigenvalue_stops_and_returns_to_before_it() -> None:
    rule = EigenvalueRise(window=2, threshold=1.3, minimum_epochs=1)
    calm = eigenvalues(9.0, 1.0, 1.0, 1.2, 1.3)
    assert rule(calm) is None, "the mean rose from 1 to 1.25"
    assert rule(calm + eigenvalues(-2.0)) == 4, "magnitudes: from (1 + 1.2) / 2 to (1.3 + 2) / 2"
    for epochs in range(5):
        assert rule(calm[:epochs]) is None, "two full windows after the first epochs are needed"


def test_the_published_window_is_five_epochs() -> None:
    history = eigenvalues(*[0.0] * 5, *[1.0] * 5, *[1.2] * 5)
    assert EigenvalueRise()(history) is None
    assert EigenvalueRise()(eigenvalues(*[0.0] * 5, *[1.0] * 5, *[1.4] * 5)) == 10


def test_too_many_skip_connections_stop_and_return_to_the_last_epoch_within_the_limit() -> None:
    rule = SkipConnections(limit=2, minimum_epochs=2)
    assert rule(skips(4, 3)) is None, "alpha is as it was drawn"
    assert rule(skips(4, 3, 2)) is None
    assert rule(skips(4, 3, 2, 1, 2, 3)) == 5
    assert rule(skips(3, 4, 4)) == 1, "none within the limit: the last of the epochs with the fewest"
    assert rule(skips(4, 3, 3)) == 3
    assert SkipConnections(group="cell", minimum_epochs=0)([{"skip_connects_cell": 3}]) == 1


def test_rules_say_what_they_miss() -> None:
    with pytest.raises(
        InvalidInput, match="skip_connects_normal, which this search does not have; it has a, b"
    ):
        SkipConnections()([{"a": 1, "b": 2}])
    with pytest.raises(InvalidInput, match="window 0"):
        EigenvalueRise(window=0)
