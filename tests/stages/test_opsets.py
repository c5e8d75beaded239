"""Files for older runtimes: a lower opset and IR version, the same answers, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from models.images.deploy import Deployed
from stages.errors import UserError
from stages.images.data import ImageCard
from stages.images.export.onnx_file import write_graph
from stages.images.latency.graph import graph_of
from stages.images.params import ExportParams
from stages.opsets import DEFAULT, HIGHEST, LOWEST, written_for
from stages.registry.runtimes import FIRST_RUNTIME, first_runtime
from tests.stages.test_latency_graph import NETWORKS, deployed

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
# The IR version that came with each opset: github.com/onnx/onnx, docs/Versioning.md.
IR = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9}


@pytest.fixture(scope="module")
def network() -> Deployed:
    genotype, side, channels, cells = NETWORKS["s5"]
    return deployed(genotype, side, channels, cells)


def assert_answers_as_torch(network: Deployed, model: bytes) -> None:
    with torch.no_grad():
        expected = network(torch.from_numpy(IMAGES)).numpy()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(None, {"image": IMAGES})[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("opset", [*IR, DEFAULT, HIGHEST])
def test_every_opset_has_the_same_answers(network: Deployed, opset: int) -> None:
    model = graph_of(network, (8, 8, 3), 10, opset)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == IR.get(opset, 10)
    onnx.checker.check_model(model, full_check=True)
    assert_answers_as_torch(network, model.SerializeToString())


def test_the_exporters_file_is_lowered_too(network: Deployed, tmp_path: Path) -> None:
    card = ImageCard.model_construct(image_shape=(8, 8, 3))
    write_graph(network, card, LOWEST, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (LOWEST, IR[LOWEST])
    assert_answers_as_torch(network, model.SerializeToString())


def test_a_network_that_an_opset_cannot_hold_is_refused_in_one_line() -> None:
    genotype, side, channels, cells = NETWORKS["s4 with noise"]
    noisy = deployed(genotype, side, channels, cells)
    with pytest.raises(UserError, match=r"export.opset is 14, .*Shape.*; choose a higher one") as error:
        graph_of(noisy, (side, side, 3), 10, 14)
    assert "\n" not in str(error.value)
    graph_of(noisy, (side, side, 3), 10, 15)


def test_an_exporter_that_takes_another_opset_is_noticed() -> None:
    with pytest.raises(AssertionError, match="another opset"):
        written_for(
            onnx.helper.make_model(onnx.GraphProto(), opset_imports=[onnx.helper.make_opsetid("", 18)]), 19
        )


def test_the_settings_allow_what_can_be_written_and_each_has_its_runtime() -> None:
    bounds = {type(item).__name__: item for item in ExportParams.model_fields["opset"].metadata}
    assert (bounds["Ge"].ge, bounds["Le"].le) == (LOWEST, HIGHEST)
    assert set(FIRST_RUNTIME) == set(range(LOWEST, HIGHEST + 1))
    assert first_runtime(20) == "ONNX Runtime 1.18"
