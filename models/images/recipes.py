"""What ``retrain.recipe`` stands for: the settings that came after the paper of DARTS, and set together.

``darts`` trains as the paper does, with none of them. ``modern`` has two parts. What makes every step count
(Nesterov momentum, the average of the weights, a warm-up) is always on. What keeps a network from learning
its images by heart (CutMix, RandAugment) is on from ``LONG`` epochs: a small network that sees each image a
few times has not learned them yet, and such images only make its task harder. docs/evidence.md, "The
recipe", has what we measured of this and what we did not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

LONG = 100  # epochs


@dataclass(frozen=True)
class Recipe:
    """The names are those of the settings in params.yaml."""

    warmup_epochs: int = 0
    nesterov: bool = False
    ema_decay: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0  # where there is mixing
    random_erasing: float = 0.0
    randaugment: int = 0
    randaugment_magnitude: float = 5.0  # where there are operations


def darts(epochs: int) -> Recipe:
    return Recipe()


def modern(epochs: int) -> Recipe:
    """The rate warms up for a tenth of the epochs, but at most 5.

    CutMix is as published for CIFAR (arXiv 1905.04899).
    """
    steps = Recipe(warmup_epochs=min(5, epochs // 10), nesterov=True, ema_decay=0.999)
    if epochs < LONG:
        return steps
    return replace(steps, cutmix=1.0, mix_probability=0.5, randaugment=1, randaugment_magnitude=5.0)


RECIPES: Mapping[str, Callable[[int], Recipe]] = {"darts": darts, "modern": modern}
