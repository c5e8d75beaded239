"""The graph that is written in milliseconds is the one of torch's exporter: same answers, same optimized nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from models.images.deploy import Deployed
from models.images.genotype import from_json
from models.images.spaces import search_space
from models.images.task import found_network
from models.search.genotype import Genotype
from models.search.random_cells import random_cell
from stages.images.data import ImageCard
from stages.images.export.onnx_file import write_graph
from stages.images.latency.graph import graph_of

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]


def deployed(genotype: Genotype, side: int, channels: int, cells: int, seed: int = 0) -> Deployed:
    """The network in evaluation mode, with running statistics, scales and shifts as after a training."""
    network = found_network(
        genotype, (side, side, 3), 10, seed=seed, channels=channels, cells=cells, stages=3, auxiliary=False
    )
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
    return Deployed(network, MEAN, STD).eval()


def nasbench201(cell: str) -> Genotype:
    return from_json({"space": "nasbench201", "arch_str": cell})


def drawn(space: str, seed: int) -> Genotype:
    return random_cell(search_space(space), torch.Generator().manual_seed(seed))


# Sides of 8 and 9 pixels hide taps of kernels behind padding and need odd halves; 128 has the stem of large images.
NETWORKS: Mapping[str, tuple[Genotype, int, int, int]] = {
    "nasbench201": (drawn("nasbench201", 0), 9, 4, 1),
    "no path from the input": (
        nasbench201(
            "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|avg_pool_3x3~0|skip_connect~1|skip_connect~2|"
        ),
        8,
        4,
        1,
    ),
    "no path to the output": (
        nasbench201("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|avg_pool_3x3~0|none~1|skip_connect~2|"),
        8,
        4,
        1,
    ),
    "nothing": (nasbench201("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"), 8, 4, 1),
    "s5": (drawn("s5", 1), 8, 4, 3),
    "s5, odd sides": (drawn("s5", 2), 9, 2, 3),
    "s5, large images": (drawn("s5", 3), 128, 2, 3),
    "s1": (drawn("s1", 0), 8, 2, 3),
    "s4 with noise": (drawn("s4", 0), 12, 8, 3),
}


def session(model: bytes, optimized: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def nodes(path: Path) -> Counter[tuple[str, tuple[Any, ...]]]:
    """The nodes of a graph: operation and the shape of its kernel, with how often they occur."""

    def kernel(node: onnx.NodeProto) -> Sequence[int]:
        return next((attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"), ())

    return Counter((node.op_type, tuple(kernel(node))) for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    genotype, side, channels, cells = NETWORKS[name]
    network = deployed(genotype, side, channels, cells)
    model = graph_of(network, (side, side, 3), 10, 20)
    onnx.checker.check_model(model, full_check=True)
    brightest = np.array([32, 128, 256])[:, None, None, None]  # so that their answers differ
    images = np.random.default_rng(0).integers(0, brightest, (3, side, side, 3)).astype(np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    run = session(model.SerializeToString(), tmp_path / "optimized.onnx")
    for batch in (1, 3):
        found = np.asarray(run.run(["probabilities"], {"image": images[:batch]})[0])
        np.testing.assert_allclose(found, expected[:batch], atol=1e-5)
    least = 1e-5 if name == "s4 with noise" else 1e-4  # what the image has to say drowns in the noise
    assert name == "nothing" or np.ptp(expected, axis=0).max() > least, "the answer depends on the image"


@pytest.mark.parametrize(
    "name", ["nasbench201", "no path from the input", "no path to the output", "s5", "s4 with noise"]
)
def test_the_runtime_makes_the_same_of_it_as_of_the_exported_file(name: str, tmp_path: Path) -> None:
    genotype, side, channels, cells = NETWORKS[name]
    network = deployed(genotype, side, channels, cells)
    card = ImageCard(
        name="made up", counts={}, sha256="", classes=[str(number) for number in range(10)],
        image_shape=(side, side, 3), mean=MEAN, std=STD, mirror=False,
    )  # fmt: skip
    write_graph(network, card, 20, tmp_path / "exported.onnx")
    session((tmp_path / "exported.onnx").read_bytes(), tmp_path / "theirs.onnx")
    session(graph_of(network, card.image_shape, 10, 20).SerializeToString(), tmp_path / "ours.onnx")
    assert nodes(tmp_path / "ours.onnx") == nodes(tmp_path / "theirs.onnx")


def test_what_leads_to_nothing_is_not_in_the_file() -> None:
    cell = "|{}~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    with_dead_end, without = (
        graph_of(deployed(nasbench201(cell.format(op)), 8, 4, 1), (8, 8, 3), 10, 20).graph
        for op in ("nor_conv_3x3", "none")
    )
    assert [node.op_type for node in with_dead_end.node] == [node.op_type for node in without.node]
    assert len(with_dead_end.initializer) == len(without.initializer)
