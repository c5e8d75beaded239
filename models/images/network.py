"""The network of a genotype: the evaluation network of DARTS (arXiv 1806.09055, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.ops.candidates import Identity, OpSpec, build
from models.images.ops.norm import BatchNorm
from models.images.ops.preprocess import GlobalAveragePool, ReluConvNorm, ReluReduce
from models.images.sizes import Channels, is_large, reductions, side_after_reductions, widths
from models.images.skeleton import Stem
from models.images.spaces import NODES
from models.search.genotype import Genotype

_AUXILIARY_POOL, _AUXILIARY_STRIDE = 5, 3
# Side in pixels that the auxiliary head, which pools 5x5 and convolves 2x2, needs at two thirds of the depth.
AUXILIARY_SIDE = _AUXILIARY_POOL + _AUXILIARY_STRIDE


class Cell(nn.Module):
    """One discrete cell: each node sums two operations on earlier nodes.

    The output is the nodes' concatenation.
    """

    def __init__(
        self,
        edges: tuple[tuple[int, int, str], ...],
        channels_before: tuple[int, int],
        spec: OpSpec,
        *,
        reduces: bool,
        reduced_before: bool,
    ):
        super().__init__()
        first = ReluReduce if reduced_before else ReluConvNorm
        self.preprocess0 = first(channels_before[0], spec.channels, affine=True)
        self.preprocess1 = ReluConvNorm(channels_before[1], spec.channels, affine=True)
        self.edges = edges
        self.ops = nn.ModuleList(
            build(op, OpSpec(spec.channels, 2 if reduces and src < 2 else 1, generator=spec.generator))
            for src, _, op in edges
        )

    def forward(self, input0: Tensor, input1: Tensor, keep_KB: Tensor | None) -> Tensor:
        nodes: dict[int, Tensor] = {0: self.preprocess0(input0), 1: self.preprocess1(input1)}
        rectified: dict[int, Tensor] = {}
        for position, ((src, dst, _), op) in enumerate(zip(self.edges, self.ops, strict=True)):
            x = nodes[src]
            if op.takes_relu:
                if src not in rectified:
                    rectified[src] = F.relu(x)
                x = rectified[src]
            y = op(x)
            if keep_KB is not None and not isinstance(op, Identity):
                y = y * keep_KB[position][:, None, None, None]
            nodes[dst] = nodes[dst] + y if dst in nodes else y
        return torch.cat([nodes[node] for node in range(2, 2 + NODES)], dim=1)


class AuxiliaryHead(nn.Sequential):
    """A classifier on the features at two thirds of the depth, for training only (DARTS, appendix A)."""

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(_AUXILIARY_POOL, _AUXILIARY_STRIDE, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            BatchNorm(128, affine=True),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            BatchNorm(768, affine=True),
            nn.ReLU(),
            GlobalAveragePool(),  # one pixel is left of 32x32 images, for which DARTS defines the head
            nn.Linear(768, classes),
        )


class Network(nn.Module):
    """Stem, cells of a genotype with reductions at one and two thirds, average pooling, linear classifier.

    ``auxiliary`` asks for the auxiliary head. It is left out where the feature maps are too small for it and
    where the stem is the one for large images.
    """

    def __init__(
        self,
        genotype: Genotype,
        *,
        channels: Channels,
        cells: int,
        classes: int,
        channels_in: int,
        image_size: int,
        auxiliary: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.genotype = genotype
        stages = iter(widths(channels))
        width = next(stages)
        self.stem = Stem(channels_in, width, image_size, affine=True)
        before, reduced_before = (self.stem.channels, self.stem.channels), self.stem.reduced
        self.cells = nn.ModuleList()
        self.auxiliary_at = reductions(cells)[1]
        self.auxiliary: AuxiliaryHead | None = None
        for index in range(cells):
            reduces = index in reductions(cells)
            if reduces:
                width = next(stages)
            edges = genotype.groups["reduce" if reduces else "normal"]
            spec = OpSpec(width, generator=generator)
            self.cells.append(Cell(edges, before, spec, reduces=reduces, reduced_before=reduced_before))
            before, reduced_before = (before[1], NODES * width), reduces
            if auxiliary and index == self.auxiliary_at and takes_auxiliary(image_size):
                self.auxiliary = AuxiliaryHead(before[1], classes)
        self.classifier = nn.Linear(before[1], classes)

    def forward(self, x: Tensor, keep_LKB: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, classes) and, in training mode, those of the auxiliary head if there is one, else None.

        keep_LKB (cells, edges, B) are the factors of drop path, see models/images/retrain.py; None keeps all
        paths.
        """
        input0, input1 = self.stem(x)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            input0, input1 = input1, cell(input0, input1, None if keep_LKB is None else keep_LKB[index])
            if index == self.auxiliary_at and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(input1)
        return self.classifier(input1.mean(dim=(2, 3))), auxiliary


def takes_auxiliary(image_size: int) -> bool:
    """Whether images of that side (pixels) leave feature maps large enough for the auxiliary head."""
    return not is_large(image_size) and side_after_reductions(image_size) >= AUXILIARY_SIDE
