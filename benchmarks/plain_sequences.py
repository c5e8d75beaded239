"""The supercells of models/sequences/supercell.py as one would write them: loops over steps, nodes, edges and operations.

Every edge and side has weights of its own, every candidate is computed by itself, and N mixes take N passes.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from models.search.objective import Mix
from models.search.spaces import SearchSpace

OPERATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class PlainCell(nn.Module, ABC):
    """What both cells share. ``gates[side][row]`` (operations,) belong to one edge."""

    first = 0

    def __init__(self, space: SearchSpace, inputs: int, hidden: int):
        super().__init__()
        self.space, self.hidden = space, hidden
        self.sides = [group for group in space.groups if group != "combiner"]
        self.edges = space.groups[self.sides[0]]
        self.computed = sorted({edge.dst for edge in self.edges})
        self.gamma = nn.ParameterList(torch.full((), 1 / len(self.computed)) for _ in self.computed)
        self.gates = nn.ModuleDict(
            {side: nn.ParameterList(torch.ones(len(edge.ops)) for edge in self.edges) for side in self.sides}
        )

    def forward(self, x: Tensor, state: Tensor | None, mix: Mix) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(len(x), self.hidden) if state is None else state
        outputs = []
        mix = {**mix, **{side: self.divided(mix[side]) for side in self.sides}}
        for time in range(x.shape[1]):
            h = self.step(x[:, time], h, mix)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h

    @abstractmethod
    def step(self, x: Tensor, h: Tensor, mix: Mix) -> Tensor:
        """The next state."""

    def divided(self, rows: Tensor) -> Tensor:
        """The mix divided by what all candidates into a node weigh together, where that is more than 1."""
        divided = []
        for node in self.computed:
            into = [row for row, edge in enumerate(self.edges) if edge.dst == node]
            columns = [column for column, op in enumerate(self.edges[0].ops) if op != "none"]
            divided.append(rows[into] / rows[into][:, columns].sum().clamp_min(1))
        return torch.cat(divided)


class PlainTwoInput(PlainCell):
    def __init__(self, space: SearchSpace, inputs: int, hidden: int):
        super().__init__(space, inputs, hidden)
        self.input = nn.Linear(inputs + hidden, hidden)
        self.update = nn.Linear(inputs + hidden, hidden)
        self.linear = nn.ModuleDict(
            {side: nn.ModuleList(nn.Linear(hidden, hidden) for _ in self.edges) for side in self.sides}
        )

    def step(self, x: Tensor, h: Tensor, mix: Mix) -> Tensor:
        nodes = {0: h, 1: self.input(torch.cat([x, h], dim=1))}
        output = torch.zeros_like(h)
        for index, node in enumerate(self.computed):
            a, b = (self.side(side, node, nodes, mix[side]) for side in self.sides)
            mean, product = mix["combiner"][index]
            nodes[node] = mean * (a + b) / 2 + product * (a * b).clamp(-10, 10)
            output = output + self.gamma[index] * nodes[node]
        update = torch.sigmoid(self.update(torch.cat([x, h], dim=1)))
        return h + update * (output.clamp(-10, 10) - h)

    def side(self, side: str, node: int, nodes: Mapping[int, Tensor], rows: Tensor) -> Tensor:
        total = torch.zeros_like(nodes[0])
        for row, edge in enumerate(self.edges):
            if edge.dst != node:
                continue
            z = self.linear[side][row](nodes[edge.src])
            for column, op in enumerate(edge.ops):
                if op != "none":
                    value = OPERATIONS[op](z)
                    total = total + rows[row, column] * self.gates[side][row][column] * value
        return total


class PlainOneInput(PlainCell):
    def __init__(self, space: SearchSpace, inputs: int, hidden: int):
        super().__init__(space, inputs, hidden)
        self.input = nn.Linear(inputs + hidden, 2 * hidden)
        self.linear = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in self.computed)

    def step(self, x: Tensor, h: Tensor, mix: Mix) -> Tensor:
        c, u = self.input(torch.cat([x, h], dim=1)).chunk(2, dim=1)
        nodes = {0: h + torch.sigmoid(c) * (torch.tanh(u) - h)}
        output = torch.zeros_like(h)
        rows = mix["cell"]
        for index, node in enumerate(self.computed):
            total = torch.zeros_like(h)
            for row, edge in enumerate(self.edges):
                if edge.dst != node:
                    continue
                source = nodes[edge.src]
                c, u = self.linear[index](source).chunk(2, dim=1)
                for column, op in enumerate(edge.ops):
                    if op != "none":
                        value = source + torch.sigmoid(c) * (OPERATIONS[op](u) - source)
                        total = total + rows[row, column] * self.gates["cell"][row][column] * value
            nodes[node] = total
            output = output + self.gamma[index] * total
        return output.clamp(-10, 10)


def plain_of(space: SearchSpace, inputs: int, hidden: int) -> PlainCell:
    """The plain cell of a space."""
    return (PlainOneInput if space.family == "one-input" else PlainTwoInput)(space, inputs, hidden)


def pairs(cell: nn.Module, plain: PlainCell, of: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """``of`` each parameter of a supercell, cut into the parts that are parameters of the plain cell, and of these."""
    own = {name: of(parameter) for name, parameter in cell.named_parameters()}
    found = list(zip(own["gamma"], map(of, plain.gamma), strict=True))
    for number, side in enumerate(plain.sides):
        found += zip(own["gates"][:, number], map(of, plain.gates[side]), strict=True)
    for name in ("weight", "bias"):
        theirs = of(getattr(plain.input, name))
        if isinstance(plain, PlainTwoInput):
            found.append((own[f"input.{name}"], theirs))
            found.append((own[f"update.{name}"], of(getattr(plain.update, name))))
            leaving: dict[int, int] = {}
            for row, edge in enumerate(plain.edges):
                place = leaving[edge.src] = leaving.get(edge.src, -1) + 1
                for number, side in enumerate(plain.sides):
                    linear = plain.linear[side][row]
                    found.append((own[f"{name}.{edge.src}"][place, number], of(getattr(linear, name))))
        else:
            found.append((own[f"input_{name}"].flatten(0, 1), theirs))
            for index, linear in enumerate(plain.linear):
                found.append((own[name][index].flatten(0, 1), of(getattr(linear, name))))
    return found


@torch.no_grad()
def copy_weights(cell: nn.Module, plain: PlainCell) -> None:
    """Gives the plain cell the weights of a supercell."""
    for ours, theirs in pairs(cell, plain, lambda parameter: parameter):
        theirs.copy_(ours)
