"""The supernet for sequences: a forecaster or a language model around a supercell. It grows with its cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import InvalidInput
from models.search.growth import AddNode, AddOperation, Growing, Widen
from models.search.objective import Mix
from models.search.spaces import SearchSpace
from models.search.widening import Widening
from models.sequences.skeleton import Forecaster, LanguageModel
from models.sequences.spaces import OPERATIONS, search_space
from models.sequences.supercell import Supercell


class SequenceSupernet(nn.Module):
    """``supernet(x, mix)`` is a forecast (B, horizon, K), or logits (B, T, C) of a text whose state starts at zero.

    With the stacked mixes of N architectures, it has N * B rows, those of mix 0 first.
    """

    def __init__(self, network: Forecaster | LanguageModel, family: str):
        super().__init__()
        self.network, self.family = network, family

    @property
    def cell(self) -> Supercell:
        cell = self.network.cell
        assert isinstance(cell, Supercell)
        return cell

    @property
    def space(self) -> SearchSpace:
        return search_space(self.family, self.cell.nodes, self.cell.operations)

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        if isinstance(self.network, Forecaster):
            return self.network(x, mix)
        return self.network(x, None, mix)[0]

    def sizes(self) -> dict[str, int]:
        return {"nodes": self.cell.nodes, "hidden": self.cell.hidden}

    def grow(self, edit: Growing, generator: torch.Generator) -> None:
        """Raises InvalidInput for operations that are unknown or there already, or a width that is not larger."""
        match edit:
            case AddNode():
                self.cell.add_node(generator)
            case AddOperation(name):
                if name not in OPERATIONS or name == "none":
                    raise InvalidInput(
                        f"growth cannot add the operation {name!r}; choose from {', '.join(OPERATIONS[1:])}"
                    )
                self.cell.add_operation(name)
            case Widen(width):
                widening, head = Widening(self.cell.hidden, width, generator), self.network.head
                with torch.no_grad():
                    self.cell.widen(widening)
                    head.weight = nn.Parameter(widening.inputs(head.weight, 1))
                head.in_features = width

    def rebalance(self, before: Mix, after: Mix) -> None:
        self.cell.rebalance(before, after)
