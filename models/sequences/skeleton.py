"""What surrounds a recurrent cell: a network that forecasts series, and one that predicts the next token of a text.

Supernet, found network and LSTM differ in the cell only. The forecaster adds three parts to the cell, each of which is
known to help: the window's last values are subtracted first and added at the end, so that a level that drifts away
from that of the training does no harm (NLinear, arXiv 2205.13504); a linear map of the look-back, shared by the
targets, follows the scale of its input, which a bounded cell does not (LSTNet, arXiv 1703.07015, section 3.6); and a
linear map of the last hidden state gives all steps of the horizon at once. What the cell sees is bounded, because one
outlier would stay in the memory of a cell that adds up its inputs; the linear map sees it as it is.

Axes: B batch, N mixes, L look-back, T time steps, V variables (targets first), I inputs of the cell, K targets,
H hidden, S state, C tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

BOUND = 10.0  # standard deviations, of what the cell sees


class Cell(Protocol):
    """A recurrent cell, run over all time steps. A cell is a torch module.

    With the stacked mixes of N architectures, a supernet's cell returns N * B rows, those of the first mix first.
    """

    @property
    def hidden(self) -> int:
        """The size H of its output."""
        ...

    def __call__(self, x_BTI: Tensor, state_BS: Tensor | None, *mix: Any) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, H) and the state after the last step (B, S). A state of None is zeros.

        Of all cells but the LSTM, the state is the last output.
        """
        ...


@dataclass(frozen=True)
class SeriesShape:
    """The sizes of a forecast: ``variables`` counts targets and covariates."""

    lookback: int
    horizon: int
    variables: int
    targets: int


class Forecaster(nn.Module):
    """Windows (B, L, V), standardized, to forecasts (B, horizon, K) in the same units."""

    def __init__(self, cell: Cell, shape: SeriesShape):
        super().__init__()
        self.shape = shape
        self.cell = cell
        self.head = nn.Linear(cell.hidden, shape.horizon * shape.targets)
        self.linear = nn.Linear(shape.lookback, shape.horizon)

    def forward(self, x_BLV: Tensor, *mix: Any) -> Tensor:
        """With N stacked mixes, the rows are (N * B), those of the first mix first."""
        targets = self.shape.targets
        last_B1K = x_BLV[:, -1:, :targets]
        levelled_BLK = x_BLV[:, :, :targets] - last_B1K
        inputs = torch.cat([levelled_BLK, x_BLV[:, :, targets:]], dim=2).clamp(-BOUND, BOUND)
        outputs, _ = self.cell(inputs, None, *mix)
        curved = self.head(outputs[:, -1]).unflatten(1, (self.shape.horizon, targets))
        straight = self.linear(levelled_BLK.mT).mT + last_B1K
        return curved + straight.repeat(len(curved) // len(straight), 1, 1)


class LanguageModel(nn.Module):
    """Tokens (B, T) to the logits (B, T, C) of the token after each, with a state that a longer text carries on."""

    def __init__(self, cell: Cell, tokens: int, embedding: int):
        super().__init__()
        self.embedding = nn.Embedding(tokens, embedding)
        self.cell = cell
        self.head = nn.Linear(cell.hidden, tokens)

    def forward(self, tokens_BT: Tensor, state_BS: Tensor | None = None, *mix: Any) -> tuple[Tensor, Tensor]:
        """Logits and the state after the last token. With N stacked mixes, both have N * B rows."""
        outputs, state = self.cell(self.embedding(tokens_BT), state_BS, *mix)
        return self.head(outputs), state
