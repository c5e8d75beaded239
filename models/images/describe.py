"""What a network for images costs: parameters and multiply-accumulates."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.images.builders import network_of
from models.images.families import family_of
from models.images.sizes import STAGES, Channels, check_image_size
from models.search.genotype import Genotype


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


def describe(
    genotype: Genotype,
    *,
    channels: Channels,
    cells: int,
    classes: int,
    image_size: int,
    channels_in: int = 3,
    stages: int = STAGES,
) -> dict[str, int]:
    """``params`` without and ``params_with_auxiliary`` with the auxiliary head, and ``macs`` for one image.

    Where there is no auxiliary head, both counts of parameters are equal. Then what publications about the
    family report besides: for NAS-Bench-201 ``flops``, which are the multiply-accumulates and the
    classifier's biases. The network is built on PyTorch's meta device, so nothing is computed.
    """
    check_image_size(image_size, image_size)

    def network(*, auxiliary: bool) -> nn.Module:
        return network_of(
            genotype,
            channels=channels,
            cells=cells,
            classes=classes,
            channels_in=channels_in,
            image_size=image_size,
            stages=stages,
            auxiliary=auxiliary,
        )

    with torch.device("meta"):
        plain = network(auxiliary=False).eval()
        macs = count_macs(plain, torch.empty(1, channels_in, image_size, image_size))
        counts = {
            "params": count_parameters(plain),
            "params_with_auxiliary": count_parameters(network(auxiliary=True)),
            "macs": macs,
        }
    return counts | family_of(genotype).extra_counts(macs, classes)
