"""The supernet and the networks of NAS-Bench-201 (Dong and Yang, arXiv 2001.00326, sections 2.1 and 2.2).

Both have the same skeleton: a 3x3 stem; stages of equal cells; between stages a residual block that halves
the side and doubles the channels; then norm, ReLU, average pooling and a linear classifier. A cell has four
nodes, each the sum of one operation on every earlier node. Differs from the benchmark in that the average
pooling of the residual block takes odd sides too.

The supernet is built of the same stacked edges as that of DARTS (models/images/supernet.py), and its mix is
an argument too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.ops.candidates import Identity, OpSpec, StandardConv, build
from models.images.ops.norm import BatchNorm
from models.images.sizes import Channels, widths
from models.images.spaces import NASBENCH201_NODES
from models.images.supernet import (
    BeginProbe,
    NodeWeights,
    OpWeights,
    OutgoingEdges,
    begin_plain_probe,
    compiled_probe,
    leaving,
    run_cell,
)
from models.search.genotype import Genotype
from models.search.spaces import Edge, SearchSpace


class ResidualReduction(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, plus the input after pooling and a 1x1 convolution.

    Halves the side. Doubles the channels, unless the stages have channels of their own.
    """

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 2, 1, bias=False)
        self.norm1 = BatchNorm(channels, affine=True)
        self.conv2 = StandardConv(3, OpSpec(channels))
        self.shortcut = nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.norm1(self.conv1(F.relu(x)))))
        return y + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))


class Skeleton(nn.Module):
    """What surrounds the cells. ``cell(channels)`` makes a cell."""

    def __init__(
        self,
        cell: Callable[[int], nn.Module],
        *,
        channels: Channels,
        cells: int,
        stages: int,
        classes: int,
        channels_in: int,
    ):
        super().__init__()
        width, *others = widths(channels, stages)
        self.stem = nn.Sequential(
            nn.Conv2d(channels_in, width, 3, 1, 1, bias=False), BatchNorm(width, affine=True)
        )
        self.body = nn.ModuleList(cell(width) for _ in range(cells))
        for wider in others:
            self.body.append(ResidualReduction(width, wider))
            width = wider
            self.body.extend(cell(width) for _ in range(cells))
        self.norm = BatchNorm(width, affine=True)
        self.classifier = nn.Linear(width, classes)

    def cells(self) -> list[nn.Module]:
        return [layer for layer in self.body if not isinstance(layer, ResidualReduction)]

    def forward(self, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """Logits of images; ``run(cell, x)`` computes a cell."""
        x = self.stem(x)
        for layer in self.body:
            x = layer(x) if isinstance(layer, ResidualReduction) else run(layer, x)
        return self.classifier(F.relu(self.norm(x)).mean(dim=(2, 3)))


class MixedBenchmarkCell(nn.Module):
    """A cell with all its candidates on every edge: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, edges: Sequence[Edge], spec: OpSpec):
        super().__init__()
        self.sources = nn.ModuleList(
            OutgoingEdges([edges[row] for row in leaving(edges, node)], spec, pool_norm=False)
            for node in range(NASBENCH201_NODES - 1)
        )

    def forward(self, x: Tensor, weights: Sequence[OpWeights]) -> Tensor:
        nodes = {0: x}
        for node, outgoing in enumerate(self.sources):
            assert isinstance(outgoing, OutgoingEdges)
            terms = outgoing(nodes[node], weights[node])
            for dst, of_edge in zip(outgoing.destinations, terms, strict=True):
                for term in of_edge:
                    nodes[dst] = nodes[dst] + term if dst in nodes else term
        return nodes[NASBENCH201_NODES - 1]


class BenchmarkSupernet(nn.Module):
    """The weight-sharing network of the space, with ``cells`` cells in each of ``stages`` stages.

    The mix is an argument.
    """

    def __init__(
        self, space: SearchSpace, *, channels: int, cells: int, stages: int, classes: int, channels_in: int
    ):
        super().__init__()
        self.edges = space.groups["cell"]
        self.node_weights = NodeWeights(self.edges)
        self.begin_probe: BeginProbe = begin_plain_probe
        self.skeleton = Skeleton(
            lambda channels: MixedBenchmarkCell(self.edges, OpSpec(channels, affine=False)),
            channels=channels,
            cells=cells,
            stages=stages,
            classes=classes,
            channels_in=channels_in,
        )

    def compile_probes(self, *, graphs: bool) -> None:
        """Has the pass under N mixes compiled at its first use, and replayed as CUDA graphs with ``graphs``."""
        self.begin_probe = compiled_probe(len(self.skeleton.cells()), graphs=graphs)

    def forward(self, x: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, classes) of images (B, channels_in, H, W) under a mix of (6, operations).

        With mixes of (N, 6, operations), in evaluation mode, logits (N * B, classes): those of mix 0 first.
        """
        weights = self.node_weights(mix["cell"], len(x))
        run = self.begin_probe() if mix["cell"].dim() == 3 else run_cell
        return self.skeleton(x, lambda cell, x: run(cell, weights, x))


class BenchmarkCell(nn.Module):
    """A discrete cell.

    A node whose edges are all ``none`` is zero; operations on it still add the shift of their norm.
    """

    def __init__(self, edges: Sequence[tuple[int, int, str]], spec: OpSpec):
        super().__init__()
        self.edges = [edge for edge in edges if edge[2] != "none"]
        self.ops = nn.ModuleList(build(op, spec) for _, _, op in self.edges)

    def forward(self, x: Tensor, keep_KB: Tensor | None) -> Tensor:
        nodes = {0: x}
        for position, ((src, dst, _), op) in enumerate(zip(self.edges, self.ops, strict=True)):
            source = nodes.setdefault(src, torch.zeros_like(x))
            y = op(F.relu(source) if op.takes_relu else source)
            if keep_KB is not None and not isinstance(op, Identity):
                y = y * keep_KB[position][:, None, None, None]
            nodes[dst] = nodes[dst] + y if dst in nodes else y
        return nodes.get(NASBENCH201_NODES - 1, torch.zeros_like(x))


class BenchmarkNetwork(nn.Module):
    """The network of a genotype, trained from scratch. It has no auxiliary head."""

    def __init__(
        self,
        genotype: Genotype,
        *,
        channels: Channels,
        cells: int,
        stages: int,
        classes: int,
        channels_in: int,
    ):
        super().__init__()
        self.genotype = genotype
        self.skeleton = Skeleton(
            lambda channels: BenchmarkCell(genotype.groups["cell"], OpSpec(channels)),
            channels=channels,
            cells=cells,
            stages=stages,
            classes=classes,
            channels_in=channels_in,
        )

    @property
    def cells(self) -> list[nn.Module]:
        return self.skeleton.cells()

    def forward(self, x: Tensor, keep_LKB: Tensor | None = None) -> tuple[Tensor, None]:
        """Logits (B, classes), and None where other networks have the logits of an auxiliary head.

        keep_LKB (cells, edges, B) are the factors of drop path, see models/images/retrain.py; None keeps all
        paths.
        """
        factors = None if keep_LKB is None else iter(keep_LKB)
        return self.skeleton(x, lambda cell, x: cell(x, None if factors is None else next(factors))), None
