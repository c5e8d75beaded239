"""What a network for images costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import nn

from models.images.builders import network_of
from models.images.families import family_of
from models.images.sizes import STAGES, Channels, check_image_size
from models.search.genotype import Genotype
from models.training.costs import count_macs, count_parameters


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
