"""The supernet of DARTS: every edge carries all its candidate operations, weighted by the mix.

The mix is an argument of the forward pass, never state: ``supernet(x, mix)``. The result is that of the
published code, but two things are computed differently: what depends on the source node alone (ReLU, pooling
and its norm, identity) is computed once per node instead of once per edge, and the edges that leave a node
are computed together (models/images/ops/candidates.py). ``none`` adds nothing and is never computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.ops.candidates import OpSpec, build
from models.images.ops.norm import add_weighted
from models.images.ops.preprocess import ReluConvNorm, ReluReduce
from models.images.sizes import reductions
from models.images.skeleton import Stem
from models.images.spaces import NODES
from models.search.freezing import Stack
from models.search.spaces import Edge, SearchSpace

OpWeights = Mapping[str, Tensor]  # operation -> weights of the edges of one node that have it
RunCell = Callable[..., Tensor]  # (cell, weights, *inputs) -> output
BeginProbe = Callable[[], RunCell]  # what runs the cells of the pass under N mixes that now begins


class OutgoingEdges(nn.Module):
    """All edges of a cell that leave one node, with all their candidate operations."""

    def __init__(self, edges: Sequence[Edge], spec: OpSpec, *, pool_norm: bool = True):
        super().__init__()
        self.destinations = [edge.dst for edge in edges]
        self.carriers = carriers(edges)
        self.ops = nn.ModuleDict()
        for op, positions in self.carriers.items():
            stacked = OpSpec(spec.channels, spec.stride, len(positions), spec.affine, spec.generator)
            self.ops[op] = build(op, stacked, pool_norm=pool_norm)
        self.shared = [op for op, module in self.ops.items() if module.shared]
        self.stacked = [op for op, module in self.ops.items() if not module.shared]

    def forward(self, x: Tensor, weights: OpWeights) -> list[list[Tensor]]:
        """x (B, C, H, W) -> for each edge the terms (B, C, H', W') whose sum is its output."""
        terms: list[list[Tensor]] = [[] for _ in self.destinations]
        relu = F.relu(x)
        repeated: dict[int, Tensor] = {}
        totals: dict[tuple[int, ...], Tensor] = {}
        for op in self.stacked:
            module, positions, weight = self.ops[op], self.carriers[op], weights[op]
            source = relu if module.takes_relu else x
            if module.takes_repeated and len(positions) > 1:
                if len(positions) not in repeated:
                    repeated[len(positions)] = torch.cat([source] * len(positions), dim=1)
                source = repeated[len(positions)]
            total = totals.get(positions)
            if weight.dim() > 1:
                totals[positions] = add_weighted(total, module(source), weight)
            else:
                y = module(source, weight)
                totals[positions] = y if total is None else total + y
        for positions, total in totals.items():
            for position, term in zip(positions, total.chunk(len(positions), dim=1), strict=True):
                terms[position].append(term)
        shared: dict[int, Tensor] = {}
        for op in self.shared:
            y, weight = self.ops[op](x), weights[op]
            for index, position in enumerate(self.carriers[op]):
                shared[position] = add_weighted(shared.get(position), y, weight[..., index : index + 1])
        for position, term in shared.items():
            terms[position].append(term)
        return terms


def stacks(supernet: nn.Module) -> list[Stack]:
    """The candidate operations with weights: one entry per operation, source node and cell."""
    return [
        Stack(
            tuple(f"{name}.ops.{op}.{weight}" for weight, _ in module.ops[op].named_parameters()),
            len(positions),
        )
        for name, module in supernet.named_modules()
        if isinstance(module, OutgoingEdges)
        for op, positions in module.carriers.items()
        if any(True for _ in module.ops[op].parameters())
    ]


def carriers(edges: Sequence[Edge]) -> dict[str, tuple[int, ...]]:
    """Operation -> positions of the edges that have it as a candidate. ``none`` is left out."""
    found: dict[str, list[int]] = {}
    for position, edge in enumerate(edges):
        for op in edge.ops:
            if op != "none":
                found.setdefault(op, []).append(position)
    return {op: tuple(positions) for op, positions in found.items()}


def leaving(edges: Sequence[Edge], node: int) -> list[int]:
    """Rows of the mix whose edge leaves ``node``."""
    return [row for row, edge in enumerate(edges) if edge.src == node]


class MixedCell(nn.Module):
    """One cell: two inputs, and four nodes that each sum their mixed incoming edges.

    The output is the nodes' concatenation.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        channels_before: tuple[int, int],
        spec: OpSpec,
        *,
        reduces: bool,
        reduced_before: bool,
    ):
        super().__init__()
        first = ReluReduce if reduced_before else ReluConvNorm
        self.preprocess0 = first(channels_before[0], spec.channels, affine=False)
        self.preprocess1 = ReluConvNorm(channels_before[1], spec.channels, affine=False)
        self.sources = nn.ModuleList(
            OutgoingEdges(
                [edges[row] for row in leaving(edges, node)],
                OpSpec(spec.channels, 2 if reduces and node < 2 else 1, 1, False, spec.generator),
            )
            for node in range(1 + NODES)
        )

    def forward(self, input0: Tensor, input1: Tensor, weights: Sequence[OpWeights]) -> Tensor:
        nodes = {0: self.preprocess0(input0), 1: self.preprocess1(input1)}
        incoming: dict[int, list[Tensor]] = {}
        for node, outgoing in enumerate(self.sources):
            assert isinstance(outgoing, OutgoingEdges)
            if node >= 2:
                nodes[node] = _sum(incoming[node])
            for dst, terms in zip(outgoing.destinations, outgoing(nodes[node], weights[node]), strict=True):
                incoming.setdefault(dst, []).extend(terms)
        last = 1 + NODES
        nodes[last] = _sum(incoming[last])
        return torch.cat([nodes[node] for node in range(2, 2 + NODES)], dim=1)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    # The sum of two terms is a new tensor whose channels lie together; the terms are parts of larger tensors.
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total


class NodeWeights(nn.Module):
    """The mix of a cell type, sorted into the weights that the operations of each node take."""

    order: Tensor

    def __init__(self, edges: Sequence[Edge]):
        super().__init__()
        self.entries: list[tuple[int, str, int]] = []  # (source node, operation, how many edges have it)
        order = []
        for node in range(max(edge.dst for edge in edges)):
            rows = leaving(edges, node)
            for op, positions in carriers([edges[row] for row in rows]).items():
                self.entries.append((node, op, len(positions)))
                at = [rows[position] for position in positions]
                order += [row * len(edges[row].ops) + edges[row].ops.index(op) for row in at]
        self.register_buffer("order", torch.tensor(order, device="cpu"), persistent=False)

    def forward(self, mix: Tensor, batch: int) -> list[OpWeights]:
        """mix ([N,] edges, operations) -> for each node: operation -> (E,) or, for N mixes, (N, batch, E)."""
        # All entries at once, because one operation per entry would take longer.
        flat = mix.flatten(-2).index_select(-1, self.order)
        if mix.dim() == 3:
            flat = flat[:, None].expand(-1, batch, -1)
        plan: list[dict[str, Tensor]] = [{} for _ in range(1 + max(node for node, _, _ in self.entries))]
        pieces = flat.split([count for _, _, count in self.entries], dim=-1)
        for (node, op, _), weight in zip(self.entries, pieces, strict=True):
            plan[node][op] = weight
        return list(plan)


def run_cell(cell: nn.Module, weights: Sequence[OpWeights], *inputs: Tensor) -> Tensor:
    """The output of a mixed cell under the weights of its nodes."""
    return cell(*inputs, weights)


def begin_plain_probe() -> RunCell:
    """Has the pass computed as it is written."""
    return run_cell


def compiled_probe(cells: int, *, graphs: bool) -> BeginProbe:
    """Has the pass compiled at its first use; cells of equal build share the code.

    With ``graphs`` it is replayed as CUDA graphs, where there is CUDA.
    """
    # On a CPU the quick pooling cuts a cell into parts, and each part is compiled for every shape that it meets.
    # When cells were compiled whole, with PyTorch's pooling, a pass was slower and compiling took three times as
    # long (docs/log.md).
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 16 * cells)
    compiled = torch.compile(run_cell, dynamic=False, mode="reduce-overhead" if graphs else None)

    def begin() -> RunCell:
        if graphs:
            # What a graph returns is void once the next generation of graphs begins, which by default is with the
            # next cell. Once this has been called, it begins here only.
            torch.compiler.cudagraph_mark_step_begin()
        return compiled

    return begin


class Supernet(nn.Module):
    """The weight-sharing network of a DARTS space.

    Its parameters are the weights only; the mix is an argument.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        channels: int,
        cells: int,
        classes: int,
        channels_in: int,
        image_size: int,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.space = space
        self.begin_probe: BeginProbe = begin_plain_probe
        self.node_weights = nn.ModuleDict(
            {group: NodeWeights(edges) for group, edges in space.groups.items()}
        )
        self.stem = Stem(channels_in, channels, image_size, affine=False)
        before, reduced_before = (self.stem.channels, self.stem.channels), self.stem.reduced
        self.groups, self.cells = [], nn.ModuleList()
        for index in range(cells):
            reduces = index in reductions(cells)
            if reduces:
                channels *= 2
            group = "reduce" if reduces else "normal"
            spec = OpSpec(channels, affine=False, generator=generator)
            self.cells.append(
                MixedCell(space.groups[group], before, spec, reduces=reduces, reduced_before=reduced_before)
            )
            self.groups.append(group)
            before, reduced_before = (before[1], NODES * channels), reduces
        self.classifier = nn.Linear(before[1], classes)

    def compile_probes(self, *, graphs: bool) -> None:
        """Has the pass under N mixes compiled at its first use, and replayed as CUDA graphs with ``graphs``."""
        self.begin_probe = compiled_probe(len(self.cells), graphs=graphs)

    def forward(self, x: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, classes) of images (B, channels_in, H, W) under a mix (edges, operations) per cell type.

        With mixes of (N, edges, operations), in evaluation mode, logits (N * B, classes): those of mix 0
        first.
        """
        weights = {group: self.node_weights[group](mix[group], len(x)) for group in set(self.groups)}
        input0, input1 = self.stem(x)
        run = self.begin_probe() if mix[self.groups[0]].dim() == 3 else run_cell
        for group, cell in zip(self.groups, self.cells, strict=True):
            input0, input1 = input1, run(cell, weights[group], input0, input1)
        # The mean over pixels, written so that its gradient has the channels last too.
        return self.classifier(input1.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1))
