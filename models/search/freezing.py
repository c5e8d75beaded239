"""Operation-level early stopping: a candidate operation whose weights begin to overfit is trained no further.

OLES (Jiang et al., "Operation-Level Early Stopping for Robustifying Differentiable NAS", NeurIPS 2023) compares, for
each candidate on each edge of each cell, the gradients of its weights on a training and on a validation batch.
As long as the operation learns what holds for both, they agree. Their cosine is averaged over some steps, and an
operation whose mean falls below a threshold keeps its weights from then on. Its weight in the mix moves on.

Axes: E edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.errors import InvalidInput


@dataclass(frozen=True)
class Stack:
    """One candidate operation on E edges of a cell.

    Each of its weights has the parts of the edges one after another along the first axis.
    """

    weights: tuple[str, ...]
    edges: int


@dataclass(frozen=True)
class FreezingConfig:
    """The cosine below which an operation is frozen, and over how many steps it is averaged; as published.

    Raises InvalidInput for a threshold outside (-1, 1) or fewer than one step.
    """

    threshold: float = 0.4
    steps: int = 20

    def __post_init__(self) -> None:
        if not -1 < self.threshold < 1 or self.steps < 1:
            raise InvalidInput(
                f"freezing has the threshold {self.threshold} over {self.steps} steps; set a cosine between -1 and 1,"
                " and 1 step or more"
            )


class GradientAgreement:
    """Freezes candidates by the agreement of their gradients."""

    def __init__(self, stacks: Sequence[Stack], config: FreezingConfig):
        self.stacks, self.threshold, self.steps = stacks, config.threshold, config.steps
        self.seen = 0
        self.sums = [torch.zeros(stack.edges) for stack in stacks]
        self.frozen = [torch.zeros(stack.edges, dtype=torch.bool) for stack in stacks]

    def observe(self, train: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> None:
        """Takes the gradients of all weights on a training and on a validation batch into account."""
        for index, stack in enumerate(self.stacks):
            agreement_E = agreement(stack, train, valid)
            self.sums[index] = self.sums[index].to(agreement_E) + agreement_E
        self.seen += 1
        if self.seen == self.steps:
            self.frozen = [
                frozen.to(sums.device) | (sums / self.steps < self.threshold)
                for frozen, sums in zip(self.frozen, self.sums, strict=True)
            ]
            self.sums = [torch.zeros_like(sums) for sums in self.sums]
            self.seen = 0

    @contextmanager
    def holding(self, params: Mapping[str, Tensor]) -> Iterator[None]:
        """Frozen weights are after the block what they were before, whatever an optimizer does to them."""
        held = [
            (params[name], frozen, params[name].detach().unflatten(0, (stack.edges, -1))[frozen].clone())
            for stack, frozen in zip(self.stacks, self.frozen, strict=True)
            if bool(frozen.any())
            for name in stack.weights
        ]
        yield
        for weight, frozen, before in held:
            weight.data.unflatten(0, (len(frozen), -1))[frozen] = before

    def report(self) -> dict[str, float]:
        """A column of the history: the share of all candidates with weights that are frozen."""
        return {"frozen": float(torch.cat([frozen.float().cpu() for frozen in self.frozen]).mean())}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "sums": self.sums, "frozen": self.frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.sums, self.frozen = state["seen"], list(state["sums"]), list(state["frozen"])


def agreement(stack: Stack, train: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
    """Per edge, the cosine (E,) between two gradients of the operation's weights; 1 where one of them is zero."""

    def inner(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
        products = [(one[name] * other[name]).reshape(stack.edges, -1).sum(dim=1) for name in stack.weights]
        return torch.stack(products).sum(dim=0)

    norms_E = (inner(train, train) * inner(valid, valid)).sqrt()
    return torch.where(norms_E > 0, inner(train, valid) / norms_E, 1.0)
