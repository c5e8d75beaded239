"""A wider layer that computes the same: Net2Wider (Chen, Goodfellow and Shlens, arXiv 1511.05641, section 2.2).

New units are copies of old ones, drawn at random, and what reads a unit divides its weight between the copies. The paper
divides it equally and adds noise, because equal copies with equal outgoing weights get equal gradients and stay equal.
Here it is divided at random, each outgoing weight by itself, so that copies get different gradients while the function
stays what it was.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.errors import InvalidInput


class Widening:
    """From ``before`` to ``after`` units. Raises InvalidInput unless there are more.

    Old units keep their places. Weights are drawn on the CPU, so that all devices get the same.
    """

    def __init__(self, before: int, after: int, generator: torch.Generator):
        if after <= before:
            raise InvalidInput(f"a width of {before} cannot grow to {after}; set more than {before}")
        self.before, self.after, self.generator = before, after, generator
        copied = torch.randint(before, (after - before,), generator=generator)
        self.units = torch.cat([torch.arange(before), copied])  # which old unit each unit is

    def outputs(self, weight: Tensor, axis: int) -> Tensor:
        """What makes the units, with ``axis`` running over them: copies compute what their originals do."""
        return weight.index_select(axis, self.units.to(weight.device))

    def inputs(self, weight: Tensor, axis: int) -> Tensor:
        """What reads the units, with ``axis`` running over them: copies share the weight of their original."""
        units = self.units.to(weight.device)
        whole = weight.index_select(axis, units)
        parts = 0.5 + torch.rand(whole.shape, generator=self.generator, dtype=torch.float64)
        parts = parts.to(device=weight.device, dtype=weight.dtype)
        sums = torch.zeros_like(weight).index_add(axis, units, parts)
        return whole * (parts / sums.index_select(axis, units))
