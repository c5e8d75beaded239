"""LSTM and GRU are cells of the two-input space: with the right weights it computes what torch's cells do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.search.discretize import one_hot
from models.search.genotype import Genotype
from models.sequences.cell import FoundCell, TwoInputBody
from models.sequences.genotype import from_json
from models.sequences.spaces import two_input
from models.sequences.supercell import TwoInputSupercell, supercell_of

INPUTS, SIZE, BATCH, STEPS = 3, 4, 5, 7
ONE = 40.0  # tanh(40) is 1 in float64
OPEN = 40.0  # sigmoid(40) is 1 in float64: every step takes all of the new output

# State [c, h]. In [ , ], what the two parts of a node's state hold.
LSTM = {
    "space": "two-input",
    "nodes": [
        {"left": ["sigmoid", 1], "right": ["identity", 0], "combiner": "product"},  # [f c, ...]
        {"left": ["sigmoid", 1], "right": ["tanh", 1], "combiner": "product"},  # [i g, o 1]
        {"left": ["identity", 2], "right": ["identity", 3], "combiner": "sum"},  # [f c + i g = c', o]
        {"left": ["tanh", 4], "right": ["identity", 4], "combiner": "product"},  # [1 c', tanh(c') o = h']
    ],
}
# State [h, ..., ...]. The input s_1 holds the sums of r, of z, and the part of n that does not depend on r.
GRU = {
    "space": "two-input",
    "nodes": [
        {
            "left": ["sigmoid", 1],
            "right": ["identity", 0],
            "combiner": "product",
        },  # [r (V h + v), z h, 1 - z]
        {"left": ["identity", 2], "right": ["identity", 1], "combiner": "sum"},  # [sum of n, z h, 1 - z]
        {"left": ["tanh", 3], "right": ["identity", 3], "combiner": "product"},  # [n (1 - z), 1 z h, ...]
        {"left": ["identity", 4], "right": ["identity", 4], "combiner": "sum"},  # [n (1 - z) + z h = h', ...]
    ],
}


class Weights:
    """Weights of all sides, zero unless they are set, in blocks of the size of torch's cell."""

    def __init__(self, parts: int):
        self.hidden = parts * SIZE
        self.input = torch.zeros(self.hidden, INPUTS + self.hidden)
        self.input_bias = torch.zeros(self.hidden)
        self.weight = torch.zeros(4, 2, self.hidden, self.hidden)
        self.bias = torch.zeros(4, 2, self.hidden)

    def reads(self, node: int, side: int, part: int, of: int, weight: float | Tensor = 1.0) -> None:
        """The part of a side of a node is ``weight`` times a part of its source."""
        block = self.weight[node - 2, side, _part(part), _part(of)]
        block += weight if isinstance(weight, Tensor) else weight * torch.eye(SIZE)

    def adds(self, node: int, side: int, part: int, bias: float | Tensor) -> None:
        self.bias[node - 2, side, _part(part)] = bias

    def linear(self, part: int, x: Tensor, h: Tensor, bias: Tensor, state: int) -> None:
        """The part of the input s_1 is x W_x + h W_h + bias, where h is a part of the state."""
        self.input[_part(part), :INPUTS] = x
        columns = _part(state)
        self.input[_part(part), INPUTS + columns.start : INPUTS + columns.stop] = h
        self.input_bias[_part(part)] = bias


def _part(number: int) -> slice:
    return slice(number * SIZE, (number + 1) * SIZE)


def lstm_weights(cell: torch.nn.LSTMCell) -> Weights:
    """s_1 has two parts, but the cell needs four sums, so that two nodes read x and h through maps of s_1 of their own.

    With s_1 = [x, h] itself, padded with zeros, each side may compute its sums by itself.
    """
    found = Weights(2)
    assert 2 * SIZE >= INPUTS + SIZE, "x and h fit into s_1"
    found.input[:INPUTS, :INPUTS] = torch.eye(INPUTS)
    found.input[INPUTS : INPUTS + SIZE, INPUTS + SIZE :] = torch.eye(
        SIZE
    )  # h is the second part of the state
    of_x, of_h = cell.weight_ih.detach().chunk(4), cell.weight_hh.detach().chunk(4)
    biases = (cell.bias_ih + cell.bias_hh).detach().chunk(4)
    i, f, g, o = range(4)

    def sums(node: int, side: int, part: int, gate: int) -> None:
        rows = found.weight[node - 2, side, _part(part)]
        rows[:, :INPUTS], rows[:, INPUTS : INPUTS + SIZE] = of_x[gate], of_h[gate]
        found.adds(node, side, part, biases[gate])

    left, right = 0, 1
    sums(2, left, 0, f)
    found.reads(2, right, 0, of=0)
    sums(3, left, 0, i)
    sums(3, left, 1, o)
    sums(3, right, 0, g)
    found.adds(3, right, 1, ONE)
    found.reads(4, left, 0, of=0, weight=2.0)  # a node halves the sum of its sides
    found.reads(4, right, 0, of=0, weight=2.0)
    found.reads(4, right, 1, of=1, weight=2.0)
    found.adds(5, left, 0, ONE)
    found.reads(5, right, 0, of=0)
    found.reads(5, left, 1, of=0)
    found.reads(5, right, 1, of=1)
    return found


def gru_weights(cell: torch.nn.GRUCell) -> Weights:
    found = Weights(3)
    (xr, xz, xn), (hr, hz, hn) = cell.weight_ih.detach().chunk(3), cell.weight_hh.detach().chunk(3)
    (bxr, bxz, bxn), (bhr, bhz, bhn) = cell.bias_ih.detach().chunk(3), cell.bias_hh.detach().chunk(3)
    found.linear(0, xr, hr, bxr + bhr, state=0)
    found.linear(1, xz, hz, bxz + bhz, state=0)
    found.linear(2, xn, torch.zeros(SIZE, SIZE), bxn, state=0)
    left, right = 0, 1
    found.reads(2, left, 0, of=0)  # r
    found.reads(2, left, 1, of=1)  # z
    found.reads(2, left, 2, of=1, weight=-1.0)  # sigmoid(-a) = 1 - sigmoid(a)
    found.reads(2, right, 0, of=0, weight=hn)
    found.adds(2, right, 0, bhn)
    found.reads(2, right, 1, of=0)
    found.adds(2, right, 2, 1.0)
    found.reads(3, left, 0, of=0, weight=2.0)
    found.reads(3, right, 0, of=2, weight=2.0)
    found.reads(3, left, 1, of=1, weight=2.0)
    found.reads(3, left, 2, of=2, weight=2.0)
    found.reads(4, left, 0, of=0)  # n
    found.reads(4, right, 0, of=2)
    found.adds(4, left, 1, ONE)
    found.reads(4, right, 1, of=1)
    for side in (left, right):
        found.reads(5, side, 0, of=0)
        found.reads(5, side, 0, of=1)
    return found


def found_cell(genotype: Genotype, weights: Weights) -> FoundCell:
    cell = FoundCell(genotype, INPUTS, weights.hidden)
    body = cell.body
    assert isinstance(body, TwoInputBody)
    with torch.no_grad():
        body.input.weight.copy_(weights.input)
        body.input.bias.copy_(weights.input_bias)
        body.weight.copy_(weights.weight)
        body.bias.copy_(weights.bias)
        body.gates.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))  # the output is the last node
        body.update.weight.zero_()
        body.update.bias.fill_(OPEN)
    return cell


def supercell(genotype: Genotype, weights: Weights) -> TwoInputSupercell:
    """The supercell whose chosen sides have these weights; all others keep random ones."""
    cell = supercell_of(two_input(4), INPUTS, weights.hidden)
    assert isinstance(cell, TwoInputSupercell)
    with torch.no_grad():
        cell.input.weight.copy_(weights.input)
        cell.input.bias.copy_(weights.input_bias)
        cell.gamma.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        cell.update.weight.zero_()
        cell.update.bias.fill_(OPEN)
        for side, group in enumerate(("left", "right")):
            for src, dst, _ in genotype.groups[group]:
                place = [cell.edges[row].dst for row in cell.leaving(src)].index(dst)
                cell.weight[src][place, side] = weights.weight[dst - 2, side]
                cell.bias[src][place, side] = weights.bias[dst - 2, side]
    return cell


def run(genotype: Genotype, weights: Weights, kind: str, x: Tensor, state: Tensor) -> Tensor:
    if kind == "found":
        return found_cell(genotype, weights)(x, state)[0]
    mix = one_hot(two_input(4), genotype)
    return supercell(genotype, weights)(x, state, mix)[0]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["found", "supercell"])
def test_lstm_is_a_member(kind: str) -> None:
    torch.manual_seed(0)
    reference, x = torch.nn.LSTMCell(INPUTS, SIZE), torch.randn(BATCH, STEPS, INPUTS)
    h, c = torch.rand(BATCH, SIZE) - 0.5, torch.randn(BATCH, SIZE)
    outputs = run(from_json(LSTM), lstm_weights(reference), kind, x, torch.cat([c, h], dim=1))
    for time in range(STEPS):
        h, c = reference(x[:, time], (h, c))
        torch.testing.assert_close(outputs[:, time], torch.cat([c, h], dim=1), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["found", "supercell"])
def test_gru_is_a_member(kind: str) -> None:
    torch.manual_seed(0)
    reference, x = torch.nn.GRUCell(INPUTS, SIZE), torch.randn(BATCH, STEPS, INPUTS)
    h = torch.rand(BATCH, SIZE) - 0.5
    start = torch.cat([h, torch.zeros(BATCH, 2 * SIZE)], dim=1)
    outputs = run(from_json(GRU), gru_weights(reference), kind, x, start)
    for time in range(STEPS):
        h = reference(x[:, time], h)
        torch.testing.assert_close(outputs[:, time, :SIZE], h, rtol=0, atol=1e-12)
