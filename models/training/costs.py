"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.func import functional_call


def count_parameters(module: nn.Module) -> int:
    """Learnable parameters, batch-norm scale and shift included."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of all convolutions and matrix products in one forward pass of ``inputs``.

    Nothing is computed: the pass runs on PyTorch's meta device. Taps of a kernel that fall on padding count
    too. What batch norm, activations, pooling and sums cost does not count. ``module`` is in evaluation mode.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton: not to count parameters

    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(module, shapes, tuple(x.to("meta") for x in inputs))
    return counter.get_total_flops() // 2  # a multiplication and an addition each
