"""Codes of architectures against a plain walk through the cell, and against the networks that are built."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.images.families import family_of
from models.images.nasbench201 import BenchmarkNetwork
from models.images.notations import from_arch_str
from models.images.spaces import SPACES, search_space
from models.search.discretize import one_hot
from models.search.genotype import Genotype
from models.search.latency.encoding import Encoding
from models.search.random_cells import random_cell
from models.search.spaces import SearchSpace

NASBENCH201 = search_space("nasbench201")


def cells(space: SearchSpace, count: int) -> list[Genotype]:
    source = torch.Generator().manual_seed(0)
    return [random_cell(space, source) for _ in range(count)]


def leads_to_output(edges: set[tuple[int, int]], node: int, outputs: tuple[int, ...]) -> bool:
    return node in outputs or any(leads_to_output(edges, dst, outputs) for src, dst in edges if src == node)


def expected(space: SearchSpace, genotype: Genotype) -> list[float]:
    """The columns without the sums, spelled out."""
    live: list[float] = []
    dead: list[float] = []
    for group, edges in space.groups.items():
        chosen = {(src, dst): op for src, dst, op in genotype.groups[group] if op != "none"}
        for edge in edges:
            counts = leads_to_output(set(chosen), edge.dst, space.outputs(group))
            for op in edge.ops:
                if op != "none":
                    carries = chosen.get((edge.src, edge.dst)) == op
                    live.append(float(carries and counts))
                    dead.append(float(carries and not counts))
    return live + dead if space.name == "nasbench201" else live


@pytest.mark.parametrize("name", SPACES)
def test_a_code_says_which_edge_carries_what_and_whether_it_leads_anywhere(name: str) -> None:
    space = search_space(name)
    encoding = Encoding(space)
    genotypes = cells(space, 30)
    codes = encoding.encode_all(genotypes)
    assert codes.shape == (30, encoding.size) and codes.dtype == torch.float32
    for code, genotype in zip(codes, genotypes, strict=True):
        columns = expected(space, genotype)
        assert code[: len(columns)].tolist() == columns
        carried = sum(op != "none" for edges in genotype.groups.values() for _, _, op in edges)
        assert float(code[len(columns) :].sum()) == carried, "the sums count each edge once"
        assert float(encoding.without_paths(code[None]).sum()) == carried


def test_the_sums_count_the_edges_of_a_cell_type_with_an_operation() -> None:
    space = search_space("s2")
    genotype = cells(space, 1)[0]
    sums = Encoding(space).encode(genotype)[2 * 14 * 2 :]
    counts = [
        sum(op == wanted and (src < 2) == first for src, _, op in genotype.groups[group])
        for group in ("normal", "reduce")
        for first in (True, False)
        for wanted in ("skip_connect", "sep_conv_3x3")
    ]
    assert sorted(sums.tolist()) == sorted(map(float, counts))


@pytest.mark.parametrize("name", ["s1", "s5", "nasbench201"])
def test_the_outputs_of_cells_are_those_that_are_drawn(name: str) -> None:
    space = search_space(name)
    for group in space.groups:
        assert list(space.outputs(group)) == list(family_of(space).layout.outputs)


def answer(arch: str) -> Tensor:
    """What a small network answers; equal weights for equal operations on equal edges."""
    torch.manual_seed(0)
    network = BenchmarkNetwork(
        from_arch_str(arch), channels=2, cells=1, stages=1, classes=3, channels_in=3
    ).eval()
    for name, weight in sorted(network.state_dict().items()):
        if weight.is_floating_point():
            weight.copy_(torch.linspace(0.1, 1.0, weight.numel()).view_as(weight) + len(name) % 3)
    return network(torch.linspace(-1, 1, 3 * 16).view(1, 3, 4, 4))[0]


@pytest.mark.parametrize(
    ("arch", "without", "same"),
    [
        # 0->1 leads nowhere, because 1->2 and 1->3 are none: the network answers the same without it
        (
            "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|skip_connect~2|",
            "|none~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|skip_connect~2|",
            True,
        ),
        # 1->3 works on zeros, and still adds the shift of its norm
        (
            "|none~0|+|skip_connect~0|none~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|",
            "|none~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|skip_connect~2|",
            False,
        ),
    ],
)
def test_columns_of_paths_are_about_what_the_network_computes(arch: str, without: str, same: bool) -> None:
    with torch.no_grad():
        assert torch.allclose(answer(arch), answer(without)) is same
    encoding = Encoding(NASBENCH201)
    one, other = (encoding.encode(from_arch_str(words))[: 6 * 4] for words in (arch, without))
    assert torch.equal(one, other) is same


def test_gradients_reach_what_an_edge_could_carry_and_not_none() -> None:
    encoding = Encoding(NASBENCH201)
    genotype = from_arch_str(
        "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|skip_connect~2|"
    )
    mix = {group: rows.requires_grad_() for group, rows in one_hot(NASBENCH201, genotype).items()}
    encoding.encode_mix(mix)[: 6 * 4].sum().backward()
    gradient = mix["cell"].grad
    assert gradient is not None
    counts = torch.tensor([0.0, 1, 1, 1, 1, 1])  # of 0->1, 0->2, 1->2, 0->3, 1->3, 2->3
    assert torch.equal(gradient, counts[:, None] * torch.tensor([0.0, 1, 1, 1, 1]))


@pytest.mark.parametrize("name", ["s5", "nasbench201"])
def test_many_mixes_are_encoded_at_once(name: str) -> None:
    space = search_space(name)
    encoding = Encoding(space)
    genotypes = cells(space, 5)
    mixes = [one_hot(space, genotype) for genotype in genotypes]
    stacked = {group: torch.stack([mix[group] for mix in mixes]) for group in space.groups}
    assert torch.equal(encoding.encode_mix(stacked), encoding.encode_all(genotypes))
