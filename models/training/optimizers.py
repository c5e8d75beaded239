"""SGD, Adam and AdamW of torch that do without the compiler, and what they do when parameters grow.

Most methods of ``torch.optim.Optimizer`` are wrapped so that ``torch.compile`` leaves them alone, and the wrappers import the
whole compiler, which takes seconds. We compile networks, never a step of an optimizer, so these classes call what is
wrapped. The numbers are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Plain(Optimizer):
    """The methods of an optimizer without their wrappers."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class SGD(_Plain, torch.optim.SGD):
    """Stochastic gradient descent."""

    _step = staticmethod(inspect.unwrap(torch.optim.SGD.step))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return self._step(self, closure)


class Adam(_Plain, torch.optim.Adam):
    """Adam (Kingma and Ba 2015)."""

    _step = staticmethod(inspect.unwrap(torch.optim.Adam.step))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return self._step(self, closure)


class AdamW(_Plain, torch.optim.AdamW):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, arXiv 1711.05101)."""

    _step = staticmethod(inspect.unwrap(torch.optim.AdamW.step))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return self._step(self, closure)


def follow(optimizer: Optimizer, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Has an optimizer of the parameters ``before`` go on with those ``after``, of which some are new and others larger.

    The optimizer has one parameter group. The values of a parameter that has become larger are the leading block of the
    one with the same name. There its momentum and moments stay; the new part has no momentum. The new part's second
    moments start at the mean of the earlier ones: from zero, Adam, whose count of steps belongs to the whole tensor, would
    take steps of up to (1 - beta1) / sqrt(1 - beta2) times the learning rate, 16 times with the betas of alpha.
    """
    (group,) = optimizer.param_groups
    group["params"] = list(after.values())
    for name, earlier in before.items():
        parameter = after[name]
        if parameter is earlier or earlier not in optimizer.state:
            continue
        state = optimizer.state.pop(earlier)
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == earlier.shape:
                start = value.mean() if key.endswith("_sq") else value.new_zeros(())
                state[key] = embedded(value, start.expand(parameter.shape))
        optimizer.state[parameter] = state


def embedded(block: Tensor, around: Tensor) -> Tensor:
    """A copy of ``around`` whose leading block is ``block``."""
    whole = around.clone()
    whole[tuple(slice(size) for size in block.shape)] = block
    return whole
