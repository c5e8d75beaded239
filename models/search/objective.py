"""What strategies see of data and networks: the loss of one batch, as a function of weights and mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

Params = Mapping[str, Tensor]  # weight name -> tensor, for torch.func.functional_call
Mix = Mapping[str, Tensor]  # cell type -> (edges, operations), the weights of the candidate operations


class Objective(Protocol):
    """The loss of one batch of one split."""

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        """The loss, a scalar with gradients, in training mode."""
        ...

    def evaluated(self, params: Params, mix: Mix) -> Tensor:
        """The loss, a scalar with gradients, in evaluation mode: batch statistics untouched, no randomness."""
        ...

    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        """Losses (N,) of N mixes: as ``evaluated``, without gradients, in one batched pass."""
        ...
