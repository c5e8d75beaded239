"""The baseline of `make bench`: the same mathematics as models/, written in the obvious way.

One module per edge and operation, a ReLU in each, pooling and its norm on every edge, ``none`` computed as zeros
and added, channels first, one forward pass per perturbed mix, the projection a loop over rows, single-level search
with a pass for alpha and another for the weights. models/ is measured against this code and, in tests, must equal
it. ``copy_weights`` (benchmarks/_correspondence.py) makes both supernets the same function. The variants ``fair/*``
(benchmarks/_steps.py) run this code channels last, and ask autograd for alpha's gradient alone.

Not covered: the stems for images of 128 pixels and more, and cells other than those of DARTS.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportOperatorIssue=false
# Modules are taken out of nn.ModuleList and nn.Sequential in the obvious way, which types cannot follow.

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.sizes import reductions
from models.images.skeleton import STEM_MULTIPLIER
from models.images.spaces import NODES
from models.search.gradients import Estimate, Pathwise, Relaxation, Stateless, Step, first_order
from models.search.spaces import Edge, SearchSpace


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


class Zero(nn.Module):
    """``none``: zeros of the output's size."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """ReLU, two pointwise convolutions of stride 2, the second from one pixel on, norm."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.even = nn.Conv2d(channels_in, channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels - channels // 2, 1, 2, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


class Noise(nn.Module):
    """Standard normal noise; in evaluation a fixed pattern."""

    pattern: Tensor

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.register_buffer("pattern", torch.zeros(1, channels, 8, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        batch, channels, height, width = x.shape
        if self.training:
            return torch.randn(batch, height, width, channels, dtype=x.dtype).permute(0, 3, 1, 2)
        tiles = self.pattern.repeat(1, 1, -(-height // 8), -(-width // 8))
        return tiles[:, :, :height, :width].expand_as(x)


def _separable(channels: int, kernel: int, stride: int) -> nn.Sequential:
    padding = kernel // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        _norm(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, 1, padding, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        _norm(channels),
    )


def _dilated(channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            channels,
            channels,
            kernel,
            stride,
            kernel - 1,
            dilation=2,
            groups=channels,
            bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        _norm(channels),
    )


def build(name: str, channels: int, stride: int) -> nn.Module:
    """The candidate operation of that name on one edge."""
    match name:
        case "none":
            return Zero(stride)
        case "max_pool_3x3":
            return nn.Sequential(nn.MaxPool2d(3, stride, 1), _norm(channels))
        case "avg_pool_3x3":
            return nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), _norm(channels))
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
        case "sep_conv_3x3" | "sep_conv_5x5":
            return _separable(channels, int(name[-1]), stride)
        case "dil_conv_3x3" | "dil_conv_5x5":
            return _dilated(channels, int(name[-1]), stride)
        case "noise":
            return Noise(channels, stride)
        case _:
            raise ValueError(f"the baseline has no operation {name!r}")


class MixedEdge(nn.Module):
    """All candidates of one edge, each multiplied by its weight and added."""

    def __init__(self, edge: Edge, channels: int, stride: int):
        super().__init__()
        self.ops = nn.ModuleList(build(name, channels, stride) for name in edge.ops)

    def forward(self, x: Tensor, weights_O: Tensor) -> Tensor:
        return _sum(weight * op(x) for weight, op in zip(weights_O, self.ops, strict=True))


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(operator.add, terms)


class Cell(nn.Module):
    """Two inputs, four nodes that sum their mixed incoming edges, output their concatenation."""

    def __init__(
        self,
        edges: Sequence[Edge],
        channels_before: tuple[int, int],
        channels: int,
        *,
        reduces: bool,
        reduced_before: bool,
    ):
        super().__init__()
        self.specs = edges
        if reduced_before:
            self.preprocess0: nn.Module = FactorizedReduce(channels_before[0], channels)
        else:
            self.preprocess0 = self._preprocess(channels_before[0], channels)
        self.preprocess1 = self._preprocess(channels_before[1], channels)
        self.edges = nn.ModuleList(
            MixedEdge(edge, channels, 2 if reduces and edge.src < 2 else 1) for edge in edges
        )

    @staticmethod
    def _preprocess(channels_in: int, channels: int) -> nn.Sequential:
        return nn.Sequential(nn.ReLU(), nn.Conv2d(channels_in, channels, 1, bias=False), _norm(channels))

    def forward(self, input0: Tensor, input1: Tensor, mix_EO: Tensor) -> Tensor:
        nodes = [self.preprocess0(input0), self.preprocess1(input1)]
        for node in range(2, 2 + NODES):
            incoming = [row for row, edge in enumerate(self.specs) if edge.dst == node]
            nodes.append(_sum(self.edges[row](nodes[self.specs[row].src], mix_EO[row]) for row in incoming))
        return torch.cat(nodes[2:], dim=1)


class PlainSupernet(nn.Module):
    """The supernet of models/images/supernet.py for one mix: same signature, same function, no shortcut."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        channels: int,
        cells: int,
        classes: int,
        channels_in: int,
    ):
        super().__init__()
        stem = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(channels_in, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem))
        before, reduced_before = (stem, stem), False
        self.groups, self.cells = [], nn.ModuleList()
        for index in range(cells):
            reduces = index in reductions(cells)
            if reduces:
                channels *= 2
            group = "reduce" if reduces else "normal"
            self.cells.append(
                Cell(
                    space.groups[group],
                    before,
                    channels,
                    reduces=reduces,
                    reduced_before=reduced_before,
                )
            )
            self.groups.append(group)
            before, reduced_before = (before[1], NODES * channels), reduces
        self.classifier = nn.Linear(before[1], classes)

    def forward(self, x: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, classes) of images (B, channels_in, H, W) under a mix of (edges, operations) per cell type."""
        input0 = input1 = self.stem(x)
        for group, cell in zip(self.groups, self.cells, strict=True):
            input0, input1 = input1, cell(input0, input1, mix[group])
        return self.classifier(F.adaptive_avg_pool2d(input1, 1).flatten(1))


@torch.no_grad()
def probe(
    network: PlainSupernet,
    x: Tensor,
    target: Tensor,
    mixes: Sequence[Mapping[str, Tensor]],
) -> Tensor:
    """Losses (N,) of N mixes in evaluation mode, one forward pass each."""
    network.eval()
    losses = [F.cross_entropy(network(x, mix), target) for mix in mixes]
    network.train()
    return torch.stack(losses)


def project(rows_EO: Tensor) -> Tensor:
    """Rows onto the simplex, one by one."""
    projected = rows_EO.clone()
    for row in range(len(projected)):
        largest = int(projected[row].argmax())
        projected[row].clamp_(0.0, 1.0)
        if projected[row].sum() == 0:
            projected[row][largest] = 1.0
        projected[row] /= projected[row].sum()
    return projected


def mean_shift_mix(
    network: PlainSupernet,
    x: Tensor,
    target: Tensor,
    mix: Mapping[str, Tensor],
    *,
    samples: int,
    iterations: int,
    bandwidth: float,
    radius: float,
) -> dict[str, Tensor]:
    """The mean shift of MS-DARTS around a mix (models/search/mean_shift.py has the equations)."""
    center = dict(mix)
    for _ in range(iterations):
        drawn = [
            {
                group: project(rows + torch.empty_like(rows).uniform_(-radius, radius))
                for group, rows in center.items()
            }
            for _ in range(samples)
        ]
        score = torch.softmax(probe(network, x, target, drawn), dim=0)
        for group, rows in center.items():
            kernel = torch.stack(
                [torch.exp(-(rows - sample[group]).square().sum() / (2 * bandwidth**2)) for sample in drawn]
            )
            weights = score * kernel / (score * kernel).sum()
            center[group] = _sum(
                weight * sample[group] for weight, sample in zip(weights, drawn, strict=True)
            )
    return center


@dataclass(frozen=True)
class TwoPasses(Stateless):
    """Single-level search with two passes: this estimator makes one for alpha, and the search makes one for the weights."""

    moves_together = True

    def __call__(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Estimate:
        return Pathwise(first_order)(alphas, relaxation, replace(step, valid=step.train))
