"""From a space or a genotype to its network: DARTS and NAS-Bench-201 build them differently."""

from __future__ import annotations

import torch

from models.errors import InvalidInput
from models.images.nasbench201 import STAGES, BenchmarkNetwork, BenchmarkSupernet
from models.images.network import Network
from models.images.supernet import Supernet
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace

FoundNetwork = Network | BenchmarkNetwork


def supernet_of(
    space: SearchSpace,
    *,
    channels: int,
    cells: int,
    classes: int,
    channels_in: int,
    image_size: int,
    stages: int = STAGES,
    generator: torch.Generator | None = None,
) -> Supernet | BenchmarkSupernet:
    """The supernet of a space; ``cells`` are all of them in DARTS, those of one stage in NAS-Bench-201."""
    if space.family == "nasbench201":
        return BenchmarkSupernet(
            space, channels=channels, cells=cells, stages=stages, classes=classes, channels_in=channels_in
        )
    _check_stages(stages)
    return Supernet(
        space,
        channels=channels,
        cells=cells,
        classes=classes,
        channels_in=channels_in,
        image_size=image_size,
        generator=generator,
    )


def network_of(
    genotype: Genotype,
    *,
    channels: int,
    cells: int,
    classes: int,
    channels_in: int,
    image_size: int,
    stages: int = STAGES,
    auxiliary: bool = False,
    generator: torch.Generator | None = None,
) -> FoundNetwork:
    """The network of a genotype; ``cells`` as in ``supernet_of``. NAS-Bench-201 has no auxiliary head."""
    if genotype.space == "nasbench201":
        return BenchmarkNetwork(
            genotype, channels=channels, cells=cells, stages=stages, classes=classes, channels_in=channels_in
        )
    _check_stages(stages)
    return Network(
        genotype,
        channels=channels,
        cells=cells,
        classes=classes,
        channels_in=channels_in,
        image_size=image_size,
        auxiliary=auxiliary,
        generator=generator,
    )


def _check_stages(stages: int) -> None:
    if stages != STAGES:
        raise InvalidInput(
            f"a DARTS network has {STAGES} stages, not {stages}; only nasbench201 takes another number"
        )
