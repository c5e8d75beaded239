"""The recurrent cell of a genotype, in both families of spaces (models/sequences/spaces.py), written to run fast.

Sources: arXiv 2106.07211 for two-input nodes, which may multiply their sides; arXiv 1806.09055, section 2.1 and appendix
A.2, for one-input nodes. Differs from both in that learned gates gamma weigh the nodes in the output, instead of a mean.
The update gate of two-input cells is ours, too. One-input cells have such a gate in s_0. Without it, most two-input cells
forget within a few steps, and some saturate in training (docs/sequences.md has the numbers).

    two-input   s_1 = W_0 [x, h] + b_0,   A = o(W_A s_j + b_A),   B = o'(W_B s_k + b_B),   s_i = (A + B) / 2 or A * B
    one-input   s_0 = h + sigmoid(c_0) (tanh(u_0) - h) with [c_0, u_0] = W_0 [x, h] + b_0,
                s_i = s_j + sigmoid(c) (o(u) - s_j) with [c, u] = W_i s_j + b_i
    both        o = clamp(sum_i gamma_i s_i, -10, 10), where i counts the computed nodes
    two-input   h <- h + sigmoid(W_z [x, h] + b_z) (o - h)
    one-input   h <- o

The clamp keeps states finite. Products are clamped by themselves, too: products of products grow with a power of 2^nodes
and would overflow within a step, where inf * 0 and inf - inf give NaN, which no clamp takes back.

What makes it fast: what nodes compute from the same source is one matrix product; what depends on x is computed for all
steps before the first; W_A s_1 = W_A W_0 [x, h] + ... becomes one product with the state; and operations are applied to all
sides at once that have the same.

Axes: T time steps, B batch, I inputs, H hidden, P what the first product of a step yields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from models.search.genotype import Genotype

BOUND = 10.0  # of states and of products
OPERATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}

Weights = tuple[Tensor, ...]


class Body(nn.Module, ABC):
    """What one step of a cell computes.

    ``gates`` (nodes,) are gamma.
    """

    def __init__(self, nodes: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Parameter(torch.full((nodes,), 1 / nodes))

    @abstractmethod
    def projected(self, x_BTI: Tensor) -> Tensor:
        """The part of every step (T, B, P) that does not depend on the state."""

    @abstractmethod
    def weights(self) -> Weights:
        """What steps multiply by, put together from the parameters once for all steps."""

    @abstractmethod
    def step(self, weights: Weights, state_BH: Tensor, projected_BP: Tensor) -> Tensor:
        """The next state (B, H)."""

    def output(self, gates: Sequence[Tensor], nodes: Sequence[Tensor]) -> Tensor:
        """The state that the computed nodes, each (B, H), lead to."""
        total = gates[0] * nodes[0]
        for gate, node in zip(gates[1:], nodes[1:], strict=True):
            total = torch.addcmul(total, node, gate)
        return total.clamp(-BOUND, BOUND)


@dataclass(frozen=True)
class _Side:
    """One side of a two-input node."""

    node: int  # counted from 0 among the computed ones
    side: int  # 0 left, 1 right
    source: int
    op: str


class TwoInputBody(Body):
    """Nodes with two sides. Weights (nodes, 2, H, H) and biases (nodes, 2, H) are those of the sides."""

    def __init__(self, genotype: Genotype, inputs: int, hidden: int):
        combiners = [op for _, _, op in genotype.groups["combiner"]]
        super().__init__(len(combiners), hidden)
        self.products = [op == "product" for op in combiners]
        sides = [
            _Side(dst - 2, number, src, op)
            for number, group in enumerate(("left", "right"))
            for src, dst, op in genotype.groups[group]
        ]
        # What the state and the input lead to comes first; then each computed node in turn.
        self.first = sorted((side for side in sides if side.source < 2), key=_order)
        self.later = {
            source: sorted((side for side in sides if side.source == source), key=_order)
            for source in sorted({side.source for side in sides if side.source >= 2})
        }
        self.input = nn.Linear(inputs + hidden, hidden)
        self.update = nn.Linear(inputs + hidden, hidden)  # the update gate
        bound = hidden**-0.5  # as in nn.Linear and nn.LSTM
        self.weight = nn.Parameter(torch.empty(len(combiners), 2, hidden, hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(combiners), 2, hidden).uniform_(-bound, bound))

    def projected(self, x_BTI: Tensor) -> Tensor:
        inputs = x_BTI.shape[2]
        zero = self.input.weight.new_zeros(self.hidden, inputs)
        rows, biases = [], []
        for side in self.first:
            weight, bias = self.weight[side.node, side.side], self.bias[side.node, side.side]
            if side.source == 1:
                rows.append(weight @ self.input.weight[:, :inputs])
                biases.append(weight @ self.input.bias + bias)
            else:
                rows.append(zero)
                biases.append(bias)
        rows.append(self.update.weight[:, :inputs])
        biases.append(self.update.bias)
        return nn.functional.linear(x_BTI, torch.cat(rows), torch.cat(biases)).transpose(0, 1).to(x_BTI.dtype)

    def weights(self) -> Weights:
        of_state = self.input.weight[:, -self.hidden :]
        first = [
            self.weight[side.node, side.side] @ of_state
            if side.source == 1
            else self.weight[side.node, side.side]
            for side in self.first
        ]
        first.append(self.update.weight[:, -self.hidden :])
        later = []
        for sides in self.later.values():
            later.append(torch.cat([self.bias[side.node, side.side] for side in sides]))
            later.append(torch.cat([self.weight[side.node, side.side] for side in sides]).t())
        return (*self.gates.unbind(), torch.cat(first).t(), *later)

    def step(self, weights: Weights, state_BH: Tensor, projected_BP: Tensor) -> Tensor:
        count = len(self.products)
        gates, (first, *rest) = weights[:count], weights[count:]
        later = dict(zip(self.later, zip(rest[::2], rest[1::2], strict=True), strict=True))
        values: dict[tuple[int, int], Tensor] = {}
        sums = torch.addmm(projected_BP, state_BH, first).to(state_BH.dtype)
        sums, update = sums.split([sums.shape[1] - self.hidden, self.hidden], dim=1)
        self._operate(self.first, sums, values)
        nodes: list[Tensor] = []
        for node, product in enumerate(self.products):
            left, right = values[node, 0], values[node, 1]
            nodes.append((left * right).clamp(-BOUND, BOUND) if product else 0.5 * (left + right))
            if node + 2 in later:
                bias, weight = later[node + 2]
                sums = torch.addmm(bias, nodes[-1], weight).to(state_BH.dtype)
                self._operate(self.later[node + 2], sums, values)
        return _passed(state_BH, torch.sigmoid(update), self.output(gates, nodes))

    def _operate(
        self, sides: Sequence[_Side], sums_BP: Tensor, values: dict[tuple[int, int], Tensor]
    ) -> None:
        """Applies the sides' operations to their weighted sums, which lie side by side."""
        start = 0
        for op, group in groupby(sides, key=lambda side: side.op):
            same = list(group)
            width = len(same) * self.hidden
            part = sums_BP if width == sums_BP.shape[1] else sums_BP.narrow(1, start, width)
            results = OPERATIONS[op](part)
            parts = results.split(self.hidden, dim=1) if len(same) > 1 else (results,)
            values.update({(side.node, side.side): y for side, y in zip(same, parts, strict=True)})
            start += width


def _order(side: _Side) -> tuple[str, int, int]:
    """Sides with the same operation lie side by side."""
    return side.op, side.node, side.side


class OneInputBody(Body):
    """Nodes with one predecessor each and a gate that lets its value pass, from the highway of x and h on."""

    def __init__(self, genotype: Genotype, inputs: int, hidden: int):
        chosen = genotype.groups["cell"]
        super().__init__(len(chosen), hidden)
        self.nodes = [(src, op) for src, _, op in chosen]
        self.input = nn.Linear(inputs + hidden, 2 * hidden)
        bound = hidden**-0.5
        self.weight = nn.Parameter(torch.empty(len(chosen), 2 * hidden, hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(chosen), 2 * hidden).uniform_(-bound, bound))

    def projected(self, x_BTI: Tensor) -> Tensor:
        weight = self.input.weight[:, : x_BTI.shape[2]]
        return nn.functional.linear(x_BTI, weight, self.input.bias).transpose(0, 1).to(x_BTI.dtype)

    def weights(self) -> Weights:
        """Gates, the state's weights, and for each node that has successors their biases and weights.

        The gates of all successors come first, then their candidates.
        """
        later = []
        for source in self._sources():
            bias_N2H = torch.stack([self.bias[node] for node in self._successors(source)])
            weight = torch.stack([self.weight[node] for node in self._successors(source)])
            later.append(bias_N2H.unflatten(1, (2, -1)).transpose(0, 1).flatten())
            later.append(weight.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 2).t())
        return (*self.gates.unbind(), self.input.weight[:, -self.hidden :].t(), *later)

    def step(self, weights: Weights, state_BH: Tensor, projected_BP: Tensor) -> Tensor:
        count = len(self.nodes)
        gates, (first, *rest) = weights[:count], weights[count:]
        later = dict(zip(self._sources(), zip(rest[::2], rest[1::2], strict=True), strict=True))
        gate, candidate = torch.addmm(projected_BP, state_BH, first).to(state_BH.dtype).chunk(2, dim=1)
        values = {0: _passed(state_BH, torch.sigmoid(gate), torch.tanh(candidate))}
        # A node's successors are computed with it, so each is there before its own successors ask for it.
        for source in range(count):
            if source not in later:
                continue
            bias, weight = later[source]
            sums = torch.addmm(bias, values[source], weight).to(state_BH.dtype)
            open_, candidates = sums.chunk(2, dim=1)
            successors = self._successors(source)
            opened = torch.sigmoid(open_).split(self.hidden, dim=1)
            for node, gate, candidate in zip(
                successors, opened, candidates.split(self.hidden, dim=1), strict=True
            ):
                value = OPERATIONS[self.nodes[node][1]](candidate)
                values[node + 1] = _passed(values[source], gate, value)
        return self.output(gates, [values[node + 1] for node in range(count)])

    def _sources(self) -> list[int]:
        return sorted({source for source, _ in self.nodes})

    def _successors(self, source: int) -> list[int]:
        return [node for node, (of_node, _) in enumerate(self.nodes) if of_node == source]


def _passed(before: Tensor, gate: Tensor, candidate: Tensor) -> Tensor:
    """before + gate * (candidate - before)"""
    return torch.addcmul(before, gate, candidate - before)


BODIES: Mapping[str, Callable[[Genotype, int, int], Body]] = {
    "two-input": TwoInputBody,
    "one-input": OneInputBody,
}


class FoundCell(nn.Module):
    """The cell of a genotype with freshly initialized weights, for inputs of size I and a state of size H."""

    def __init__(self, genotype: Genotype, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.body = BODIES[genotype.space](genotype, inputs, hidden)

    def forward(self, x_BTI: Tensor, state_BH: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, H) and the last of them, which is the state."""
        state = self.start(x_BTI) if state_BH is None else state_BH
        weights, outputs = self.body.weights(), []
        for projected_BP in self.body.projected(x_BTI).unbind():
            state = self.body.step(weights, state, projected_BP)
            outputs.append(state)
        return torch.stack(outputs, dim=1), state

    def start(self, x_BTI: Tensor) -> Tensor:
        """The state (B, H) before the first step."""
        return x_BTI.new_zeros(len(x_BTI), self.hidden)
