"""The code of a discrete architecture: what a latency predictor sees of it.

A code has one column per edge and candidate operation, 1 where the edge carries the operation. ``none`` has no column,
because nothing is computed there; edges that are left out are rows of zeros. Where a cell's output is its last node,
an edge may also lead to nothing: every path from it to the output meets a ``none``. A runtime that optimizes graphs
leaves such edges out, and others compute them, so they have columns of their own, after all others. Sums come last:
how many edges of a cell type carry an operation. They add no information, but an operation takes about as long on one
edge as on another, and from few samples a predictor learns that sooner from the sums.

An edge that leaves a node without edges computes: it works on zeros, and its norm adds a shift to them
(models/images/nasbench201.py::BenchmarkCell). In ONNX Runtime it took as long as on numbers, so it has no other code.

Axes: N architectures, R rows (the edges of all cell types), O operations, V nodes of all cell types, D columns,
F candidates but ``none``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.search.discretize import one_hot
from models.search.genotype import Genotype
from models.search.objective import Mix
from models.search.spaces import SearchSpace


class Encoding(nn.Module):
    """Codes of the architectures of a space. Cell types may differ in their numbers of edges and operations.

    ``size`` is D.
    """

    computes: Tensor
    allowed: Tensor
    leaves: Tensor
    enters: Tensor
    outputs: Tensor
    inputs: Tensor
    sums: Tensor

    def __init__(self, space: SearchSpace):
        super().__init__()
        self.space = space
        rows = [(group, edge) for group, edges in space.groups.items() for edge in edges]
        self.width = max(len(edge.ops) for _, edge in rows)
        nodes = {(group, node) for group, edge in rows for node in (edge.src, edge.dst)}
        place = {node: index for index, node in enumerate(sorted(nodes))}
        ends = {place[group, node] for group in space.groups for node in space.outputs(group)}
        entered = {(group, edge.dst) for group, edge in rows}
        starts = {
            group: {place[node] for node in nodes - entered if node[0] == group} for group in space.groups
        }
        names = [[*edge.ops, *[""] * (self.width - len(edge.ops))] for _, edge in rows]
        tables = {
            "computes": [[op not in ("", "none") for op in ops] for ops in names],
            "allowed": [
                [op != "" and not (space.exclude_none and op == "none") for op in ops] for ops in names
            ],
            "leaves": [
                [place[group, edge.src] == node for node in range(len(place))] for group, edge in rows
            ],
            "enters": [
                [place[group, edge.dst] == node for node in range(len(place))] for group, edge in rows
            ],
            "outputs": [node in ends for node in range(len(place))],
            "inputs": [[node in starts[group] for node in range(len(place))] for group in space.groups],
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(table, device="cpu"), persistent=False)
        self.longest = max(len({edge.dst for edge in edges}) for edges in space.groups.values())
        self.has_dead_ends = not bool(self.outputs[self.enters.int().argmax(dim=1)].all())
        sums = _sums(space)
        self.register_buffer(
            "sums", torch.block_diag(sums, sums) if self.has_dead_ends else sums, persistent=False
        )
        self.candidates, self.size = len(sums), sum(self.sums.shape)

    def encode(self, genotype: Genotype) -> Tensor:
        """The code (D,) of a genotype."""
        chosen = {group: rows.to(self.sums) for group, rows in one_hot(self.space, genotype).items()}
        return self.encode_mix(chosen).float()

    def encode_all(self, genotypes: Sequence[Genotype]) -> Tensor:
        """The codes (N, D) of genotypes."""
        return torch.stack([self.encode(genotype) for genotype in genotypes])

    def encode_mix(self, mix: Mix) -> Tensor:
        """The code (D,) or (N, D) of mixes ([N,] edges, operations) whose rows are one-hot, or zero: left out.

        Differentiable: an entry of the mix passes on the gradient of the column that it would set to 1.
        """
        return self.encode_table(self.table(mix))

    def table(self, mix: Mapping[str, Tensor], fill: float = 0.0) -> Tensor:
        """The rows of all cell types, one after another, ([N,] R, O), with ``fill`` where a row has no candidate."""
        rows = [
            nn.functional.pad(mix[group], (0, self.width - mix[group].shape[-1]), value=fill)
            for group in self.space.groups
        ]
        return torch.cat(rows, dim=-2)

    def encode_table(self, chosen: Tensor) -> Tensor:
        """``encode_mix`` of what ``table`` makes of a mix."""
        chosen = chosen * self.computes
        parts = [chosen]
        if self.has_dead_ends:
            counts = self._reaches_output(chosen.detach())[..., None]
            parts = [chosen * counts, chosen * ~counts]
        columns = torch.cat([part[..., self.computes] for part in parts], dim=-1)
        return torch.cat([columns, columns @ self.sums.to(columns)], dim=-1)

    def without_paths(self, codes_ND: Tensor) -> Tensor:
        """Codes (N, F) that count every edge, wherever it leads, as look-up tables of operations do."""
        columns = codes_ND[:, : len(self.sums)]
        return columns.unflatten(1, (-1, self.candidates)).sum(dim=1)

    def connects(self, chosen: Tensor) -> Tensor:
        """Whether a path leads from the input to the output of every cell type, ([N]), bool.

        ``chosen`` is as in ``encode_table``. Without a path, the network answers the same whatever it is given.
        """
        if not self.has_dead_ends:
            return chosen.new_ones(chosen.shape[:-2], dtype=torch.bool)
        return ((self.inputs.to(chosen) @ self._reached(chosen * self.computes))[..., 0] > 0).all(dim=-1)

    def leads(self, genotype: Genotype) -> bool:
        """The same of a genotype."""
        return bool(self.connects(self.table(one_hot(self.space, genotype))))

    def _reaches_output(self, chosen: Tensor) -> Tensor:
        """Whether what arrives at an edge's end goes on to the output: ([N,] R), bool."""
        return (self.enters.to(chosen) @ self._reached(chosen))[..., 0] > 0

    def _reached(self, chosen: Tensor) -> Tensor:
        """1 for nodes from which a path leads to the output, and for the output, ([N,] V, 1)."""
        carries = (chosen.amax(dim=-1, keepdim=True) > 0) & self.leaves
        steps = carries.to(chosen).transpose(-1, -2) @ self.enters.to(chosen)  # ([N,] V, V)
        reached = self.outputs.to(chosen)[:, None]
        for _ in range(self.longest):
            reached = ((steps @ reached + self.outputs[:, None]) > 0).to(chosen)
        return reached


def _sums(space: SearchSpace) -> Tensor:
    """(F, sums): which columns are of the same operation in the same cell type.

    Edges that leave the cell's inputs are apart from the others: in a cell that halves the side, they do it.
    """
    columns = []
    for group, edges in space.groups.items():
        later = {edge.dst for edge in edges}
        columns += [(group, op, edge.src in later) for edge in edges for op in edge.ops if op != "none"]
    kinds = list(dict.fromkeys(columns))
    return torch.tensor([[float(column == kind) for kind in kinds] for column in columns], device="cpu")
