"""Networks as they are exported: forecasts in the user's units, and cells whose steps are one loop of the graph.

Axes: B batch, L look-back, V variables (targets first), K targets, T time steps, H hidden, P as in models/sequences/cell.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from models.sequences.cell import FoundCell
from models.sequences.skeleton import Forecaster, LanguageModel


class DeployedForecaster(nn.Module):
    """Windows (B, L, V) float32 to forecasts (B, horizon, K) float32, both in the user's units.

    Numbers are scaled in float64, because values may be large compared to their changes.
    """

    def __init__(self, network: nn.Module, targets: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network, self.targets = network, targets
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64))

    def forward(self, series: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        forecast = self.network(((series.double() - mean) / std).float())
        return (forecast.double() * std[: self.targets] + mean[: self.targets]).float()


class ScannedCell(nn.Module):
    """A found cell for export: a graph of any number of steps, whose operators are there once instead of once per step."""

    def __init__(self, cell: FoundCell):
        super().__init__()
        self.cell, self.hidden = cell, cell.hidden

    def forward(self, x_BTI: Tensor, state_BH: Tensor | None) -> tuple[Tensor, Tensor]:
        """As the cell itself."""
        body = self.cell.body
        weights = tuple(
            weight.clone() for weight in body.weights()
        )  # because ``scan`` takes no views of one tensor

        def step(state: Tensor, projected_BP: Tensor) -> tuple[Tensor, Tensor]:
            state = body.step(weights, state, projected_BP)
            return state, state.clone()

        start = self.cell.start(x_BTI) if state_BH is None else state_BH
        last, outputs_TBH = scan(step, start, body.projected(x_BTI))
        return outputs_TBH.transpose(0, 1), last


def for_export(network: nn.Module) -> nn.Module:
    """A network that shares the weights of a forecaster or language model, with its found cell's steps in one loop."""
    assert isinstance(network, Forecaster | LanguageModel) and isinstance(network.cell, FoundCell)
    if isinstance(network, Forecaster):
        exported = Forecaster(ScannedCell(network.cell), network.shape)
        exported.linear = network.linear
    else:
        exported = LanguageModel(ScannedCell(network.cell), *network.embedding.weight.shape)
        exported.embedding = network.embedding
    exported.head = network.head
    return exported.train(network.training)
