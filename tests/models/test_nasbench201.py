from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.errors import InvalidInput
from models.images.benchmark import Benchmark
from models.images.describe import describe
from models.images.genotype import from_json, to_json
from models.images.nasbench201 import BenchmarkNetwork, BenchmarkSupernet
from models.images.notations import arch_str, from_arch_str
from models.images.retrain import drop_path_factors
from models.images.spaces import NASBENCH201_OPS, search_space
from models.search.discretize import discretize, one_hot
from models.search.genotype import Genotype
from models.training.seeds import generator

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
CELLS = [
    BEST,
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
    "|none~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|",
]
SIZE = {"channels": 4, "cells": 1, "stages": 2, "classes": 3, "channels_in": 3}


@pytest.mark.parametrize("cell", CELLS)
def test_parameters_and_flops_are_those_of_the_benchmark(cell: str) -> None:
    n3, n1 = cell.count("nor_conv_3x3"), cell.count("nor_conv_1x1")
    for classes, more in ((10, 0), (100, 5850), (120, 7150)):
        counts = describe(from_arch_str(cell), channels=16, cells=5, classes=classes, image_size=32)
        assert counts["params"] == 73_306 + 243_040 * n3 + 28_000 * n1 + more
        assert counts["params_with_auxiliary"] == counts["params"]
    flops = describe(from_arch_str(cell), channels=16, cells=5, classes=10, image_size=32)["flops"]
    assert flops == 7_783_050 + 35_389_440 * n3 + 3_932_160 * n1


@pytest.mark.parametrize("cell", CELLS)
def test_genotypes_go_through_their_string_and_json(cell: str) -> None:
    genotype = from_arch_str(cell)
    assert arch_str(genotype) == cell
    assert to_json(genotype) == {"space": "nasbench201", "arch_str": cell}
    assert from_json(to_json(genotype)) == genotype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "'arch_str' is None"),
        ("", "unknown"),
        (BEST.replace("skip_connect", "sep_conv_3x3"), "operation 'sep_conv_3x3' in arch_str is unknown"),
        (BEST.replace("~2", "~0"), "has source '0'; expected 2"),
        (BEST.rpartition("+")[0], "not of the form"),
        (BEST[:-1] + "|none~3|", "not of the form"),
        (BEST[1:], "not of the form"),
    ],
)
def test_strings_of_no_cell_are_refused_in_one_line(text: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        from_arch_str(text)
    assert "\n" not in str(caught.value)


def test_darts_genotypes_have_no_string_and_take_no_operation_of_the_benchmark() -> None:
    with pytest.raises(InvalidInput, match="no NAS-Bench-201 string"):
        arch_str(Genotype("darts", {}))
    pairs = [["nor_conv_3x3", 0], ["skip_connect", 1]] * 4
    with pytest.raises(InvalidInput, match="operation 'nor_conv_3x3'"):
        from_json({"normal": pairs, "reduce": pairs})


def test_the_space_has_six_edges_of_five_operations() -> None:
    edges = search_space("nasbench201").groups["cell"]
    assert [(edge.src, edge.dst) for edge in edges] == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert all(edge.ops == NASBENCH201_OPS for edge in edges) and len(NASBENCH201_OPS) == 5


def test_every_edge_keeps_its_strongest_operation() -> None:
    mix = {"cell": torch.eye(5)[[0, 1, 2, 3, 4, 0]] * 0.6 + torch.tensor([0.0, 0.05, 0.2, 0.1, 0.05])}
    expected = "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|"
    assert arch_str(discretize(search_space("nasbench201"), mix)) == expected
    without = arch_str(discretize(search_space("nasbench201", exclude_none=True), mix))
    assert without == expected.replace("none", "nor_conv_1x1")


def test_one_hot_is_the_mix_of_a_genotype() -> None:
    space = search_space("nasbench201")
    for cell in CELLS:
        mix = one_hot(space, from_arch_str(cell))
        assert torch.equal(mix["cell"].sum(dim=-1), torch.ones(6))
        assert arch_str(discretize(space, mix)) == cell


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("cell", CELLS)
def test_the_supernet_at_a_genotype_is_the_network_of_the_genotype(cell: str) -> None:
    """The network has the supernet's weights. Norm without scale and shift equals norm with scale 1 and shift 0."""
    space, genotype = search_space("nasbench201"), from_arch_str(cell)
    supernet, network = BenchmarkSupernet(space, **SIZE), BenchmarkNetwork(genotype, **SIZE)
    outside = {k: v for k, v in supernet.state_dict().items() if ".sources." not in k}
    network.load_state_dict(outside, strict=False)
    cells: Any = zip(supernet.skeleton.cells(), network.cells, strict=True)
    for mixed, found in cells:
        channels = mixed.sources[0].ops["nor_conv_1x1"].conv.in_channels
        for (src, dst, op), module in zip(found.edges, found.ops, strict=True):
            if op.startswith("nor_conv"):
                place = (
                    dst - src - 1
                ) * channels  # edges out of a node come in the order of their destinations
                stacked = mixed.sources[src].ops[op].conv.weight
                module.conv.weight.data = stacked.data[place : place + channels].clone()
    x = torch.randn((4, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    expected, _ = network(x)
    torch.testing.assert_close(supernet(x, one_hot(space, genotype)), expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_a_mixed_cell_is_the_sum_over_edges_and_operations() -> None:
    """Against the definition: every edge by itself, every operation on its own source."""
    supernet = BenchmarkSupernet(search_space("nasbench201"), **SIZE)
    cell: Any = supernet.skeleton.cells()[0]
    mix = torch.softmax(torch.randn((6, 5), generator=torch.Generator().manual_seed(1)), dim=-1)
    x = torch.randn((4, 4, 8, 8), generator=torch.Generator().manual_seed(2))

    def convolved(source: torch.Tensor, src: int, dst: int, kernel: int) -> torch.Tensor:
        stacked = cell.sources[src].ops[f"nor_conv_{kernel}x{kernel}"].conv.weight
        weight = stacked[4 * (dst - src - 1) : 4 * (dst - src)]
        return F.batch_norm(F.conv2d(F.relu(source), weight, padding=kernel // 2), None, None, training=True)

    nodes = [x]
    for dst in range(1, 4):
        total = torch.zeros_like(x)
        for src in range(dst):
            row, source = mix[dst * (dst - 1) // 2 + src], nodes[src]
            total = total + row[1] * source + row[2] * convolved(source, src, dst, 1)
            total = total + row[3] * convolved(source, src, dst, 3)
            total = total + row[4] * F.avg_pool2d(source, 3, 1, 1, count_include_pad=False)
        nodes.append(total)
    found = cell(x, supernet.node_weights(mix, 4))
    torch.testing.assert_close(found, nodes[3], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_many_mixes_in_one_pass_are_each_mix_by_itself() -> None:
    supernet = BenchmarkSupernet(search_space("nasbench201"), **SIZE).eval()
    mixes = torch.softmax(torch.randn((3, 6, 5), generator=torch.Generator().manual_seed(1)), dim=-1)
    x = torch.randn((4, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    together = supernet(x, {"cell": mixes}).unflatten(0, (3, 4))
    for mix, logits in zip(mixes, together, strict=True):
        torch.testing.assert_close(logits, supernet(x, {"cell": mix}), rtol=0, atol=1e-12)


def test_drop_path_and_dead_cells_train() -> None:
    for cell in CELLS:
        network = BenchmarkNetwork(from_arch_str(cell), **SIZE)
        keep = drop_path_factors(network, 4, 0.5, generator(0, "drop path"), torch.device("cpu"))
        logits, auxiliary = network(torch.randn(4, 3, 8, 8), keep)
        assert auxiliary is None and logits.shape == (4, 3)
        F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()


def test_a_table_gives_accuracy_and_rank() -> None:
    table = Benchmark(dict(zip(CELLS, (94.4, 10.0, 54.3, 54.3), strict=True)))
    standings = [table.standing(from_arch_str(cell)) for cell in CELLS]
    assert [standing.rank for standing in standings] == [1, 4, 2, 2]
    assert [standing.accuracy for standing in standings] == [94.4, 10.0, 54.3, 54.3]
    with pytest.raises(InvalidInput, match="does not have"):
        table.standing(from_arch_str(BEST.replace("skip_connect", "none")))


def test_landmarks_of_the_real_table(shared: Path) -> None:
    with gzip.open(shared / "benchmarks/nasbench201_cifar10.csv.gz", "rt") as file:
        table = Benchmark({row["arch_str"]: float(row["test_acc_200ep"]) for row in csv.DictReader(file)})
    assert len(table) == 15_625
    best = max(table.accuracies, key=lambda cell: table.accuracies[cell])
    assert table.standing(from_arch_str(best)).rank == 1
    assert table.standing(from_arch_str(best)).accuracy == pytest.approx(94.373, abs=1e-3)
    assert table.standing(from_arch_str(CELLS[2])).accuracy == pytest.approx(54.297, abs=1e-3)
