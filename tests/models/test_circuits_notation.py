from __future__ import annotations

import math
import random

import pytest
import torch

from models.circuits.channels import channel, noise
from models.circuits.circuit import Gate, Hole, SuperCircuit, bound, genotype, names, space
from models.circuits.named import random_regular
from models.circuits.notation import moments_of, operation, pool, sequence, with_holes
from models.errors import InvalidInput
from models.training.seeds import generator


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ry(0)", [Gate("ry", (0,), (0.5,))]),
        ("cx(2, 1)", [Gate("cx", (2, 1))]),
        ("rx[-3*pi/4](1)", [Gate("rx", (1,), (-0.75 * math.pi,))]),
        ("u[0,pi,0.25](1)", [Gate("u", (1,), (0.0, math.pi, 0.25))]),
        ("h(*)", [Gate("h", (q,)) for q in range(3)]),
        ("rzz(*)", [Gate("rzz", (0, 1), (0.5,)), Gate("rzz", (1, 2), (0.5,))]),
        ("ry(2)+cx(2,0)+rz(0)", [Gate("ry", (2,), (0.5,)), Gate("cx", (2, 0)), Gate("rz", (0,), (0.25,))]),
        ("id", []),
    ],
)
def test_a_text_stands_for_gates(text: str, expected: list[Gate]) -> None:
    assert operation(text, 3).gates([0.5, 0.25, 0.125], 3, [(0, 1), (1, 2)]) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ry(3)", "qubit 3 is out of range; choose from 0 to 2"),
        ("cx(1,1)", "the same qubit twice"),
        ("ry", "write it with its qubits"),
        ("foo(1)", "gate 'foo' is unknown"),
        ("ry(a)", "the qubits are 'a'"),
        ("cx(0)", "cx acts on 2 qubit"),
        ("ry[nan](0)", "the angle is 'nan'"),
        ("ry[pi/0](0)", "the angle is 'pi/0'"),
        ("h[1](0)", "h has 0 angle"),
        ("ccx(*)", "ccx acts on 3 qubits; name them"),
        ("ry(0)cx", "is not understood"),
    ],
)
def test_a_wrong_text_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        operation(text, 3)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["bit_flip(1.5)", "bit_flip(nan)", "bit_flip(x)", "flip(0.1)", "bit_flip"])
def test_wrong_noise_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"noise '"):
        channel(text)


def test_holes_take_operations_on_their_qubit() -> None:
    circuit = with_holes(2, [[Gate("h", (0,)), Hole(1)], [Hole(0)]], ["id", "x", "rz[pi/2]"], noise())
    assert [edge.ops for edge in space(circuit).groups["circuit"]] == [
        ("id", "x(1)", "rz[pi/2](1)"),
        ("id", "x(0)", "rz[pi/2](0)"),
    ]
    found = genotype(["x(1)", "id"])
    assert names(found) == ("x(1)", "id")
    assert bound(circuit, found, torch.zeros(2, 1)) == [Gate("h", (0,)), Gate("x", (1,))]
    for wrong, words in (
        (["x(1)"], "1 operations, but the circuit has 2 places"),
        (["x(0)", "id"], "place 0 has 'x"),
    ):
        with pytest.raises(InvalidInput, match=words):
            bound(circuit, genotype(wrong), torch.zeros(2, 1))
    with pytest.raises(InvalidInput, match="leave its qubits out"):
        with_holes(2, [[Hole(1)]], ["id", "x(1)"])
    with pytest.raises(InvalidInput, match="has no holes"):
        with_holes(2, [[Gate("h", (0,))]], ["id", "x"])


def test_circuits_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="11 qubits; set 1 to 10"):
        sequence(11, ["h(0)", "id"], 2)
    with pytest.raises(InvalidInput, match="two elements act on qubit 1"):
        SuperCircuit(2, ((Gate("h", (1,)), Gate("cx", (0, 1))),), ())
    with pytest.raises(InvalidInput, match="finite"):
        SuperCircuit(1, ((Gate("rx", (0,), (math.nan,)),),), ())
    with pytest.raises(InvalidInput, match="twice"):
        pool(["h(0)", "h( 0 )"], 1)
    with pytest.raises(InvalidInput, match="two or more"):
        pool(["h(0)"], 1)


def test_moments_are_as_early_as_qubits_allow() -> None:
    gates = [Gate("h", (0,)), Gate("h", (1,)), Gate("cx", (0, 1)), Hole(2), Gate("x", (0,))]
    assert moments_of(gates, 3) == [[gates[0], gates[1], gates[3]], [gates[2]], [gates[4]]]


def test_random_graphs_are_regular_and_simple() -> None:
    for seed in range(5):
        nodes = random.Random(seed).choice([6, 8, 10])
        edges = random_regular(nodes, 3, generator(seed, "graphs"))
        ends = [node for edge in edges for node in edge]
        assert all(ends.count(node) == 3 for node in range(nodes))
        assert len(set(edges)) == len(edges) and all(a < b for a, b in edges)
    with pytest.raises(InvalidInput, match="no graph of 5 nodes has degree 3"):
        random_regular(5, 3, generator(0, "graphs"))
