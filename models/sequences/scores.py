"""What the training of sequences minimizes and measures.

Axes: B batch, T time steps, K targets, C tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


class ForecastScores:
    """The mean absolute scaled error of forecasts (B, horizon, K) in standardized units, as loss and as measure.

    The target (B, horizon + 1, K) is the truth and, as its last row, the factor that turns an error of each target into
    one in MASE units (Hyndman and Koehler 2006): the target's standard deviation / the window's scale.
    """

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return _scaled_errors(output, target).mean()

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"mase": _scaled_errors(output.detach(), target).mean(dim=(1, 2)).sum()}


def _scaled_errors(output: Tensor, target: Tensor) -> Tensor:
    return (output - target[:, :-1]).abs() * target[:, -1:]


@dataclass(frozen=True)
class TextScores:
    """The cross-entropy of logits (B, T, C) and the tokens (B, T) that follow, and its size in bits per character.

    ``characters`` is how many of them a token of this text has on average. So the mean over a whole split is its bits
    divided by its characters.
    """

    characters: float

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        bits_per_token = self.loss(output.detach(), target) / math.log(2)
        return {"bits_per_character": bits_per_token / self.characters * len(target)}
