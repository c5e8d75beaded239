"""Recurrent cells whose edges carry all their candidate operations, weighted by the mix. They can grow.

The mix is an argument of the forward pass, never state. What is computed:

    two-input   s_0 = h,  s_1 = W_0 [x, h] + b_0,
                A_i = sum_j sum_o w_jio o(W_ji s_j + b_ji) over earlier nodes j and operations o; B_i likewise with its own
                weights;  s_i = mix_sum (A_i + B_i) / 2 + mix_product A_i B_i
    one-input   s_0 = h + sigmoid(c_0) (tanh(u_0) - h) with [c_0, u_0] = W_0 [x, h] + b_0,
                s_i = sum_j sum_o w_jio (s_j + sigmoid(c) (o(u) - s_j)) with [c, u] = W_i s_j + b_i
    both        o = clamp(sum_i gamma_i s_i, -10, 10), with learned output gates gamma
    two-input   h <- h + sigmoid(W_z [x, h] + b_z) (o - h), with an update gate as in GRU
    one-input   h <- o
    weights     w_jio = gate_jio mix_jio / max(1, M_i), where M_i is what all candidates into i but ``none`` weigh together

Differs from DARTS (arXiv 1806.09055), which sums over the predecessors, in M_i: without a batch norm, states of a sum
over four predecessors double from node to node. At a mix that has decided, M_i is 1 and nothing is divided. The gates
``gate_jio``, 1 at the start, and gamma make growth exact (models/search/growth.py): a new node starts with gamma 0, a
new operation with gate 0, and all other gates take back what the new share of the mix takes from the old candidates.

The result is that of a loop over nodes, edges and operations (benchmarks/plain_sequences.py), but what nodes compute from
the same source is one matrix product, W_ji s_1 becomes one product with [x, h], of which the part of x is computed for
all steps before the first, and each operation is applied once per source, to all its edges.

Every edit appends along the axes of the parameters, so an earlier parameter is the leading block of the later one.

Axes: B batch, N mixes, T time steps, I inputs, H hidden, E edges, S sides, D destinations of a source, O operations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InvalidInput
from models.search.objective import Mix
from models.search.spaces import Edge, SearchSpace
from models.search.widening import Widening
from models.sequences.activation import combined, mixed_activation
from models.sequences.spaces import ONE_INPUT, TWO_INPUT, nodes_of, operations_of

BOUND = 10.0  # of states and of products
Step = Callable[[Tensor, int], Tensor]  # state (N, B, H), time -> the next state


class Supercell(nn.Module, ABC):
    """A cell of a space, run over all time steps. A state of None is zeros."""

    first: int  # the number of the first computed node
    sides: tuple[str, ...]  # groups of the space whose rows are the edges between nodes

    def __init__(self, space: SearchSpace, inputs: int, hidden: int):
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self.operations = operations_of(space)
        self.edges = list(space.groups[self.sides[0]])
        nodes = nodes_of(space)
        self.gamma = nn.Parameter(torch.full((nodes,), 1 / nodes))
        self.gates = nn.Parameter(torch.ones(len(self.edges), len(self.sides), len(self.operations)))

    @property
    def nodes(self) -> int:
        """How many nodes the cell computes."""
        return len(self.gamma)

    def forward(self, x_BTI: Tensor, state_BH: Tensor | None, mix: Mix) -> tuple[Tensor, Tensor]:
        """Outputs (N * B, T, H), those of mix 0 first, and the last of them, which is the state.

        ``mix`` has (edges, operations) per group, or (N, edges, operations) for N mixes. With N mixes, a state that
        is given has N * B rows.
        """
        batch, count = len(x_BTI), 1 if mix[self.sides[0]].dim() == 2 else len(mix[self.sides[0]])
        stacked = {group: rows if rows.dim() == 3 else rows[None] for group, rows in mix.items()}
        state = x_BTI.new_zeros(count * batch, self.hidden) if state_BH is None else state_BH
        state, outputs = state.view(count, batch, self.hidden), []
        step = self.stepper(x_BTI, self.weights_of(stacked), stacked)
        for time in range(x_BTI.shape[1]):
            state = step(state, time)
            outputs.append(state)
        return torch.stack(outputs, dim=2).flatten(0, 1), state.flatten(0, 1)

    def weights_of(self, mix: Mix) -> Tensor:
        """The weights of the candidates (N, E, S, O); ``none`` weighs nothing."""
        rows_NESO = torch.stack([mix[group] for group in self.sides], dim=2)
        return self.gates * rows_NESO / self._divisors(rows_NESO)

    def _divisors(self, rows_NESO: Tensor) -> Tensor:
        """max(1, M_i) of each edge's destination, (N, E, S, 1)."""
        mass_NES = rows_NESO.sum(dim=-1)
        if "none" in self.operations:
            mass_NES = mass_NES - rows_NESO[..., self.operations.index("none")]
        into = torch.tensor([edge.dst - self.first for edge in self.edges], device=rows_NESO.device)
        empty = mass_NES.new_zeros(len(mass_NES), self.nodes, len(self.sides))
        return empty.index_add(1, into, mass_NES).clamp_min(1.0)[:, into, :, None]

    def leaving(self, node: int) -> list[int]:
        """Rows of the edges that leave a node, by destination."""
        return [row for row, edge in enumerate(self.edges) if edge.src == node]

    @abstractmethod
    def stepper(self, x_BTI: Tensor, weights_NESO: Tensor, mix: Mix) -> Step:
        """Prepares what does not depend on the state."""

    @torch.no_grad()
    def rebalance(self, before: Mix, after: Mix) -> None:
        """Changes the gates so that the candidates of ``before`` weigh at the mix ``after`` what they did at ``before``.

        Candidates that came later have the gate 0.
        """
        old, new = (torch.stack([mix[group] for group in self.sides], dim=1)[None] for mix in (before, after))
        edges, _, operations = old[0].shape
        old = (
            old
            / self._divisors(F.pad(old, (0, new.shape[3] - operations, 0, 0, 0, new.shape[1] - edges)))[
                :, :edges
            ]
        )
        new = (new / self._divisors(new))[:, :edges, :, :operations]
        # A pruned candidate weighs 0 before and after.
        self.gates[:edges, :, :operations] *= torch.where(new > 0, old / new, 1.0)[0]

    @torch.no_grad()
    def add_operation(self, name: str) -> None:
        """Adds a candidate to all edges, with the gate 0."""
        if name in self.operations:
            raise InvalidInput(f"operation {name!r} is in the cell already; add another")
        self.operations = (*self.operations, name)
        self.gates = nn.Parameter(F.pad(self.gates, (0, 1)))

    @torch.no_grad()
    def add_node(self, generator: torch.Generator) -> None:
        """Adds a node after the others, with the output gate 0 and freshly drawn weights."""
        node = self.first + self.nodes
        self.edges += [Edge(src, node, self.operations) for src in range(node)]
        rows = self.gates.new_ones(node, *self.gates.shape[1:])
        self.gates = nn.Parameter(torch.cat([self.gates, rows]))
        self.gamma = nn.Parameter(F.pad(self.gamma, (0, 1)))
        self.connect(generator)

    @abstractmethod
    def connect(self, generator: torch.Generator) -> None:
        """Draws the weights of the last node."""

    @abstractmethod
    def widen(self, widening: Widening) -> None:
        """Adds units to the state and to all nodes."""


class TwoInputSupercell(Supercell):
    """Weights of the edges that leave a node are (D, 2, H, H) and (D, 2, H), the sides on the second axis."""

    first, sides = 2, ("left", "right")

    def __init__(self, space: SearchSpace, inputs: int, hidden: int):
        super().__init__(space, inputs, hidden)
        self.input = nn.Linear(inputs + hidden, hidden)
        self.update = nn.Linear(inputs + hidden, hidden)  # the update gate
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for node in range(self.first + self.nodes - 1):
            for weight, shape in zip((self.weight, self.bias), self._shapes(node), strict=True):
                weight.append(nn.Parameter(torch.empty(shape).uniform_(-(hidden**-0.5), hidden**-0.5)))

    def _shapes(self, node: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        bias = (len(self.leaving(node)), len(self.sides), self.hidden)
        return (*bias, self.hidden), bias

    def stepper(self, x_BTI: Tensor, weights_NESO: Tensor, mix: Mix) -> Step:
        of_x, of_state = self.input.weight.split([self.inputs, self.hidden], dim=1)
        through = self.weight[1].flatten(0, 2)
        update_x, update_state = self.update.weight.split([self.inputs, self.hidden], dim=1)
        first = torch.cat([self.weight[0].flatten(0, 2), through @ of_state, update_state])
        added = F.linear(x_BTI, through @ of_x, through @ self.input.bias + self.bias[1].flatten())
        updates = F.linear(x_BTI, update_x, self.update.bias)
        added_TBP = torch.cat([self.bias[0].flatten().expand_as(added), added, updates], dim=2).transpose(
            0, 1
        )
        weights = [
            weights_NESO[:, self.leaving(node)].flatten(1, 2) for node in range(self.first + self.nodes - 1)
        ]
        of_first = torch.cat(weights[:2], dim=1)
        later = [
            (weight.flatten(0, 2), bias.flatten(), of_edges)
            for weight, bias, of_edges in zip([*self.weight][2:], [*self.bias][2:], weights[2:], strict=True)
        ]
        combiners = mix["combiner"].unbind(dim=1)  # per node (N, 2)
        added_of, gammas, operations = added_TBP.unbind(), self.gamma.unbind(), self.operations

        def step(state_NBH: Tensor, time: int) -> Tensor:
            sums = (F.linear(state_NBH, first) + added_of[time]).unflatten(-1, (-1, self.hidden))
            sums, update = sums[:, :, :-1], torch.sigmoid(sums[:, :, -1])
            sides = mixed_activation(sums, of_first, operations).unflatten(2, (2, -1, 2)).sum(dim=2)
            total = None
            for node, (gamma, combiner) in enumerate(zip(gammas, combiners, strict=True)):
                own, sides = sides.split([1, sides.shape[2] - 1], dim=2)
                value = combined(own.squeeze(2), combiner, BOUND)
                total = gamma * value if total is None else torch.addcmul(total, gamma, value)
                if node < len(later):
                    weight, bias, of_edges = later[node]
                    sums = F.linear(value, weight, bias).unflatten(-1, (-1, self.hidden))
                    terms = mixed_activation(sums, of_edges, operations).unflatten(2, (-1, 2))
                    sides = sides + terms
            assert total is not None
            return torch.addcmul(state_NBH, update, total.clamp(-BOUND, BOUND) - state_NBH)

        return step

    def connect(self, generator: torch.Generator) -> None:
        like = self.gates
        for node in range(self.first + self.nodes - 1):
            for parameters, shape in zip((self.weight, self.bias), self._shapes(node), strict=True):
                if node < len(parameters):
                    row = _drawn((1, *shape[1:]), self.hidden, generator, like)
                    parameters[node] = nn.Parameter(torch.cat([parameters[node], row]))
                else:
                    parameters.append(nn.Parameter(_drawn(shape, self.hidden, generator, like)))

    def widen(self, widening: Widening) -> None:
        self.hidden = widening.after
        for linear in (self.input, self.update):
            of_x, of_state = linear.weight.split([self.inputs, widening.before], dim=1)
            read = torch.cat([of_x, widening.inputs(of_state, 1)], dim=1)
            linear.weight = nn.Parameter(widening.outputs(read, 0))
            linear.bias = nn.Parameter(widening.outputs(linear.bias, 0))
            linear.in_features, linear.out_features = self.inputs + self.hidden, self.hidden
        for node, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            self.weight[node] = nn.Parameter(widening.inputs(widening.outputs(weight, 2), 3))
            self.bias[node] = nn.Parameter(widening.outputs(bias, 2))


class OneInputSupercell(Supercell):
    """The weights (nodes, 2, H, H) of a node serve all its predecessors; gates c and candidates u on the second axis."""

    first, sides = 1, ("cell",)

    def __init__(self, space: SearchSpace, inputs: int, hidden: int):
        super().__init__(space, inputs, hidden)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-(hidden**-0.5), hidden**-0.5))

        self.input_weight, self.input_bias = drawn(2, hidden, inputs + hidden), drawn(2, hidden)
        self.weight, self.bias = drawn(self.nodes, 2, hidden, hidden), drawn(self.nodes, 2, hidden)

    def stepper(self, x_BTI: Tensor, weights_NESO: Tensor, mix: Mix) -> Step:
        of_x, of_state = self.input_weight.split([self.inputs, self.hidden], dim=2)
        first = of_state.flatten(0, 1)
        added_of = F.linear(x_BTI, of_x.flatten(0, 1), self.input_bias.flatten()).transpose(0, 1).unbind()
        later = []
        for source in range(self.nodes):
            weight, bias = self.weight[source:].transpose(0, 1), self.bias[source:].transpose(0, 1)
            of_edges = weights_NESO[:, self.leaving(source), 0]
            whole = of_edges.sum(dim=-1)
            if "none" in self.operations:
                whole = whole - of_edges[..., self.operations.index("none")]
            later.append((weight.flatten(0, 2), bias.flatten(), of_edges, whole[:, None, :, None]))
        gammas, operations = self.gamma.unbind(), self.operations

        def step(state_NBH: Tensor, time: int) -> Tensor:
            gate, candidate = (F.linear(state_NBH, first) + added_of[time]).chunk(2, dim=-1)
            value = torch.addcmul(state_NBH, torch.sigmoid(gate), torch.tanh(candidate) - state_NBH)
            sums = total = None
            for gamma, (weight, bias, of_edges, whole) in zip(gammas, later, strict=True):
                gates, candidates = (
                    F.linear(value, weight, bias).unflatten(-1, (2, -1, self.hidden)).unbind(2)
                )
                passed = value[:, :, None] * whole
                mixed = mixed_activation(candidates, of_edges, operations)
                terms = torch.addcmul(passed, torch.sigmoid(gates), mixed - passed)
                own, sums = (terms if sums is None else sums + terms).split([1, terms.shape[2] - 1], dim=2)
                value = own.squeeze(2)
                total = gamma * value if total is None else torch.addcmul(total, gamma, value)
            assert total is not None
            return total.clamp(-BOUND, BOUND)

        return step

    def connect(self, generator: torch.Generator) -> None:
        for name in ("weight", "bias"):
            rows = getattr(self, name)
            row = _drawn((1, *rows.shape[1:]), self.hidden, generator, rows)
            setattr(self, name, nn.Parameter(torch.cat([rows, row])))

    def widen(self, widening: Widening) -> None:
        self.hidden = widening.after
        of_x, of_state = self.input_weight.split([self.inputs, widening.before], dim=2)
        read = torch.cat([of_x, widening.inputs(of_state, 2)], dim=2)
        self.input_weight = nn.Parameter(widening.outputs(read, 1))
        self.input_bias = nn.Parameter(widening.outputs(self.input_bias, 1))
        self.weight = nn.Parameter(widening.inputs(widening.outputs(self.weight, 2), 3))
        self.bias = nn.Parameter(widening.outputs(self.bias, 2))


SUPERCELLS: Mapping[str, Callable[[SearchSpace, int, int], Supercell]] = {
    TWO_INPUT: TwoInputSupercell,
    ONE_INPUT: OneInputSupercell,
}


def supercell_of(space: SearchSpace, inputs: int, hidden: int) -> Supercell:
    """The cell of a space with freshly initialized weights."""
    return SUPERCELLS[space.family](space, inputs, hidden)


def _drawn(shape: Sequence[int], hidden: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Initial weights, drawn on the CPU."""
    drawn = torch.empty(tuple(shape), dtype=like.dtype).uniform_(
        -(hidden**-0.5), hidden**-0.5, generator=generator
    )
    return drawn.to(like.device)
