from __future__ import annotations

import pandas
import pytest
import torch

from models.sequences.baselines import AVERAGED, DLinear, LSTMCell, matched, parameters_of
from models.sequences.cell import FoundCell
from models.sequences.skeleton import Forecaster, SeriesShape
from tests.models.test_sequences_cell import random_genotype

SHAPE = SeriesShape(lookback=40, horizon=6, variables=3, targets=2)


def test_the_trend_of_dlinear_is_the_moving_average_of_pandas() -> None:
    torch.manual_seed(0)
    network, x = DLinear(SHAPE), torch.randn(3, 40, 3)
    with torch.no_grad():
        network.rest.weight.zero_()
        network.rest.bias.zero_()
        network.trend.weight.zero_()
        network.trend.weight[:, :6] = torch.eye(6)  # step n of the forecast is step n of the trend
        network.trend.bias.zero_()
        found = network(x)
    for case in range(3):
        for target in range(2):
            values = x[case, :, target].tolist()
            side = AVERAGED // 2
            padded = [values[0]] * side + values + [values[-1]] * side
            trend = pandas.Series(padded).rolling(AVERAGED).mean().tolist()[AVERAGED - 1 :]
            assert found[case, :, target].tolist() == pytest.approx(trend[:6], abs=1e-5)


def test_dlinear_adds_the_rest_and_heeds_no_covariate() -> None:
    torch.manual_seed(0)
    network, x = DLinear(SHAPE), torch.randn(3, 40, 3)
    with torch.no_grad():
        network.rest.weight.copy_(network.trend.weight)
        # With equal maps, trend + rest is the series itself.
        expected = x[:, :, :2].mean(dim=1)[:, None] + network.trend.bias[:, None] + network.rest.bias[:, None]
        torch.testing.assert_close(network(x), expected)
        other = x + torch.tensor([0.0, 0.0, 3.0])
        assert torch.equal(network(other), network(x))
    assert parameters_of(lambda: DLinear(SHAPE)) == 2 * (40 * 6 + 6)


def test_the_lstm_carries_its_hidden_state_and_its_memory() -> None:
    torch.manual_seed(0)
    cell, x = LSTMCell(3, 5), torch.randn(2, 9, 3)
    whole, end = cell(x, None)
    first, state = cell(x[:, :4], None)
    second, last = cell(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(last, end)
    step = torch.nn.LSTMCell(3, 5)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in cell.lstm.state_dict().items()})
    hidden, memory = torch.zeros(2, 5), torch.zeros(2, 5)
    for time in range(9):
        hidden, memory = step(x[:, time], (hidden, memory))
    torch.testing.assert_close(end, torch.cat([hidden, memory], dim=1))


@pytest.mark.parametrize("hidden", [3, 16, 50])
def test_the_lstm_gets_the_hidden_units_that_come_closest(hidden: int) -> None:
    genotype = random_genotype("two-input", 4, 0)
    found = parameters_of(lambda: Forecaster(FoundCell(genotype, 3, hidden), SHAPE))
    chosen = matched(lambda units: Forecaster(LSTMCell(3, units), SHAPE), found)

    def distance(units: int) -> int:
        # four gates with two biases each, the head, and the linear part
        count = 4 * units * (3 + units + 2) + (units + 1) * 6 * 2 + 41 * 6
        assert count == parameters_of(lambda: Forecaster(LSTMCell(3, units), SHAPE))
        return abs(count - found)

    assert chosen == min(range(1, 200), key=distance)
