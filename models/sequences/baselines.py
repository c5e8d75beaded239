"""The networks that a found one is compared with: an LSTM in the same skeleton, and a linear model of the look-back.

``matched`` gives a baseline as many parameters as the found network has, as far as whole numbers of hidden units allow.

Axes: B batch, L look-back, T time steps, V variables (targets first), I inputs, K targets, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.sequences.skeleton import SeriesShape

AVERAGED = 25  # steps of DLinear's moving average, the published number
_MOST_HIDDEN = 4096


class LSTMCell(nn.Module):
    """The LSTM of torch as a cell. Its state (B, 2 H) is the hidden state and, after it, the memory."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x_BTI: Tensor, state_BS: Tensor | None) -> tuple[Tensor, Tensor]:
        before = None
        if state_BS is not None:
            hidden, memory = state_BS.chunk(2, dim=1)
            before = (hidden.contiguous()[None], memory.contiguous()[None])
        outputs, (hidden, memory) = self.lstm(x_BTI, before)
        return outputs, torch.cat([hidden[0], memory[0]], dim=1)


class DLinear(nn.Module):
    """Trend and rest of each target, each mapped linearly from look-back to horizon (arXiv 2205.13504, section 4).

    The trend is a moving average over 25 steps; the ends are padded with their values. Both maps are shared by the
    targets and start as the mean of the look-back, as in the published code. It has no use for covariates.
    """

    def __init__(self, shape: SeriesShape):
        super().__init__()
        self.shape = shape
        self.trend = nn.Linear(shape.lookback, shape.horizon)
        self.rest = nn.Linear(shape.lookback, shape.horizon)
        for part in (self.trend, self.rest):
            nn.init.constant_(part.weight, 1 / shape.lookback)

    def forward(self, x_BLV: Tensor) -> Tensor:
        """Forecasts (B, horizon, K)."""
        x_BKL = x_BLV[:, :, : self.shape.targets].mT
        side = (AVERAGED - 1) // 2
        padded = torch.cat(
            [x_BKL[..., :1].expand(-1, -1, side), x_BKL, x_BKL[..., -1:].expand(-1, -1, side)], 2
        )
        trend_BKL = nn.functional.avg_pool1d(padded, AVERAGED, stride=1)
        return (self.trend(trend_BKL) + self.rest(x_BKL - trend_BKL)).mT


def parameters_of(build: Callable[[], nn.Module]) -> int:
    """The learnable parameters of a network, which is built without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def matched(build: Callable[[int], nn.Module], target: int) -> int:
    """The hidden units with which ``build(hidden)`` has the number of parameters closest to ``target``."""

    def count(hidden: int) -> int:
        return parameters_of(lambda: build(hidden))

    low, high = 1, 2
    while high < _MOST_HIDDEN and count(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return min(low, high, key=lambda hidden: abs(count(hidden) - target))
