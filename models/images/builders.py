"""From a space to its supernet and from a genotype to its network: each family builds its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from models.errors import InvalidInput
from models.images.families import DARTS, FAMILIES, NASBENCH201, Family, family_of
from models.images.nasbench201 import BenchmarkNetwork, BenchmarkSupernet
from models.images.network import Network
from models.images.sizes import STAGES, Channels
from models.images.supernet import Supernet
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace

AnySupernet = Supernet | BenchmarkSupernet
FoundNetwork = Network | BenchmarkNetwork


@dataclass(frozen=True)
class Dimensions:
    """The size of a network; ``cells`` as ``Family.cells_of`` says. A supernet has one number of channels."""

    channels: Channels
    cells: int
    stages: int
    classes: int
    channels_in: int
    image_size: int

    def common(self) -> dict[str, Any]:
        """What every family builds from."""
        return {
            "channels": self.channels,
            "cells": self.cells,
            "classes": self.classes,
            "channels_in": self.channels_in,
        }


@dataclass(frozen=True)
class Builders:
    """How a family builds networks. The generator feeds operations that draw random numbers."""

    supernet: Callable[[SearchSpace, Dimensions, torch.Generator | None], AnySupernet]
    network: Callable[[Genotype, Dimensions, bool, torch.Generator | None], FoundNetwork]


BUILDERS: Mapping[str, Builders] = {
    DARTS.name: Builders(
        lambda space, size, generator: Supernet(
            space, **size.common(), image_size=size.image_size, generator=generator
        ),
        lambda genotype, size, auxiliary, generator: Network(
            genotype,
            **size.common(),
            image_size=size.image_size,
            auxiliary=auxiliary,
            generator=generator,
        ),
    ),
    # Its networks take images of any size, have no auxiliary head and draw no random numbers.
    NASBENCH201.name: Builders(
        lambda space, size, _: BenchmarkSupernet(space, **size.common(), stages=size.stages),
        lambda genotype, size, _auxiliary, _: BenchmarkNetwork(genotype, **size.common(), stages=size.stages),
    ),
}


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
) -> AnySupernet:
    """The supernet of a space. Raises InvalidInput when its family has another number of stages."""
    family = family_of(space)
    _check_stages(family, stages)
    size = Dimensions(channels, cells, stages, classes, channels_in, image_size)
    return BUILDERS[family.name].supernet(space, size, generator)


def network_of(
    genotype: Genotype,
    *,
    channels: Channels,
    cells: int,
    classes: int,
    channels_in: int,
    image_size: int,
    stages: int = STAGES,
    auxiliary: bool = False,
    generator: torch.Generator | None = None,
) -> FoundNetwork:
    """The network of a genotype, with an auxiliary head where there can be one.

    Raises InvalidInput as ``supernet_of``.
    """
    family = family_of(genotype)
    _check_stages(family, stages)
    size = Dimensions(channels, cells, stages, classes, channels_in, image_size)
    return BUILDERS[family.name].network(genotype, size, auxiliary, generator)


def _check_stages(family: Family, stages: int) -> None:
    if family.stages not in (None, stages):
        free = " and ".join(name for name, other in FAMILIES.items() if other.stages is None)
        raise InvalidInput(
            f"networks of the family {family.name} have {family.stages} stages, not {stages};"
            f" only {free} takes another number"
        )
