"""SGD, Adam and AdamW of torch that do without the compiler.

Most methods of ``torch.optim.Optimizer`` are wrapped so that ``torch.compile`` leaves them alone, and the wrappers import the
whole compiler, which takes seconds. We compile networks, never a step of an optimizer, so these classes call what is
wrapped. The numbers are the same.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
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
