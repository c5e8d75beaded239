"""Mixes each image of a batch with another image of it, and the labels with it: mixup and CutMix.

Sources: mixup (arXiv 1710.09412, section 2): x = share x_i + (1 - share) x_j, and the same for the one-hot
labels, with share ~ Beta(alpha, alpha). CutMix (arXiv 1905.04899, equations 1 and 2): a box that covers 1 -
share of the image is taken from x_j; where the image's border cuts the box, the share of the labels is that
of the pixels.

Differs from the published code of both, which draws one share for the whole batch: here each image has a
share, a partner and a choice between the two methods of its own, so that a single batch varies.

Mixing works on normalized batches on their device, after all augmentation (models/images/augment.py).
Partners may be in the part of another process, so the processes exchange their parts. Each draws for the
whole batch.

Axes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.distributed import full_batch_size, gathered, own_part


@dataclass(frozen=True)
class MixedLabels:
    """Two labels (B,) per image; the first has the weight ``share`` (B,) in [0, 1], the second the rest."""

    first: Tensor
    second: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def mean(self, values: Callable[[Tensor], Tensor]) -> Tensor:
        """``values`` of labels (B,), one number per image, weighted by the shares of both labels (B,).

        For anything linear in the one-hot label, such as cross-entropy, this is the value at the mixed label.
        """
        of_first = values(self.first)
        share = self.share.to(of_first.dtype)
        return share * of_first + (1 - share) * values(self.second)


@dataclass(frozen=True)
class Mixing:
    """Mixes batches with draws from the generator, whose state a training saves.

    ``mixup`` and ``cutmix`` are the alphas of their Beta distributions; 0 turns a method off. If both are
    on, each image is mixed by one of them, with equal chances. ``probability`` is the chance of an image to
    be mixed at all.
    """

    mixup: float
    cutmix: float
    probability: float
    generator: torch.Generator

    def __call__(self, x_BCHW: Tensor, labels: Tensor) -> tuple[Tensor, MixedLabels]:
        """This process's part of a batch -> the same part, mixed."""
        batch, _, height, width = x_BCHW.shape
        size, device = full_batch_size(batch), x_BCHW.device
        partners = own_part(torch.randperm(size, generator=self.generator)).to(device)
        chance, kind, by_mixup, by_cutmix, rows, columns = (
            own_part(draws)
            for draws in (
                self._uniform(size),
                self._uniform(size),
                symmetric_beta(self.mixup, size, self.generator),
                symmetric_beta(self.cutmix, size, self.generator),
                self._uniform(size),
                self._uniform(size),
            )
        )
        cut = kind < (self.cutmix > 0) / ((self.mixup > 0) + (self.cutmix > 0))
        mixed = chance < self.probability
        box_BHW = boxes(by_cutmix, rows, columns, (height, width)) & (cut & mixed)[:, None, None]
        share = torch.where(mixed & ~cut, by_mixup, 1.0)

        other_BCHW = gathered(x_BCHW)[partners]
        blended = torch.lerp(other_BCHW, x_BCHW, share.to(device, x_BCHW.dtype)[:, None, None, None])
        x = torch.where(box_BHW[:, None].to(device), other_BCHW, blended)
        x = x.contiguous(memory_format=torch.channels_last)
        share = torch.where(cut, 1 - box_BHW.double().mean(dim=(1, 2)), share)
        return x, MixedLabels(labels, gathered(labels)[partners], share.to(device))

    def _uniform(self, size: int) -> Tensor:
        return torch.rand(size, dtype=torch.float64, generator=self.generator)


def mixing(mixup: float, cutmix: float, probability: float, generator: torch.Generator) -> Mixing | None:
    """The mixing of these settings, or None when nothing is mixed."""
    if mixup == cutmix == 0:
        return None
    return Mixing(mixup, cutmix, probability, generator)


def boxes(share: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes bool (B, H, W) whose sides are sqrt(1 - share) of the image's, around a center.

    ``rows`` and ``columns`` (B,) are the centers, in [0, 1). The border cuts off what lies outside.
    """

    def inside(center: Tensor, length: int) -> Tensor:
        side = (length * (1 - share).sqrt()).round()
        first = (center * length).floor() - (side / 2).floor()
        place = torch.arange(length)
        return (place >= first[:, None]) & (place < (first + side)[:, None])

    return inside(rows, size[0])[:, :, None] & inside(columns, size[1])[:, None, :]


def symmetric_beta(alpha: float, size: int, generator: torch.Generator) -> Tensor:
    """Draws (size,) float64 from Beta(alpha, alpha), two uniform numbers each; ones for an alpha of 0.

    ``torch.distributions`` takes no generator. Devroye 1996, "Random variate generation in one line of
    code": a Student t with 2 alpha degrees of freedom by Bailey's polar method, T^2 / (2 alpha) = (U^(-1 /
    alpha) - 1) cos(2 pi V)^2, and 1/2 + T / (2 sqrt(2 alpha + T^2)) has the distribution Beta(alpha, alpha).
    """
    if alpha == 0:
        return torch.ones(size, dtype=torch.float64)
    draws = torch.rand(2, size, dtype=torch.float64, generator=generator)
    cosine = torch.cos(2 * math.pi * draws[1])
    ratio = (draws[0].pow(-1 / alpha) - 1) * cosine.square()
    return 0.5 + 0.5 * cosine.sign() / (1 + 1 / ratio).sqrt()
