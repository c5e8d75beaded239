"""Which cases form the next batch: seeded, resumable at any batch, and divided between processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.training.distributed import own_part, processes


class ShuffledIndices:
    """An endless stream of batches of indices, in a new random order for each pass.

    A pass drops the indices that do not fill a batch. If there are fewer indices than ``batch_size``, all of
    them form one batch. Where several processes work together, each gets an equal part of every batch, and
    all save the same state. Raises InvalidInput when a batch cannot be divided equally.
    """

    def __init__(self, indices: Tensor, batch_size: int, generator: torch.Generator):
        self.indices, self.generator = indices, generator
        self.batch_size = min(batch_size, len(indices))
        if self.batch_size % processes():
            raise InvalidInput(
                f"a batch of {self.batch_size} cases cannot be divided equally between {processes()} devices;"
                " set a batch size that is a multiple of train.devices and not larger than the number of"
                " training cases"
            )
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    def __len__(self) -> int:
        """Batches in one pass."""
        return len(self.indices) // self.batch_size

    def __next__(self) -> Tensor:
        if self.position + self.batch_size > len(self.order):
            self.order = self.indices[torch.randperm(len(self.indices), generator=self.generator)]
            self.position = 0
        chosen = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return own_part(chosen)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.order, self.position = state["order"], state["position"]
