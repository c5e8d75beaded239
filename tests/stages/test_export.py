"""The int8 file has the float file's inputs and outputs, its numbers are right, and equal input gives equal bytes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from stages.images.export.int8 import quantize
from tests.stages.conftest import ROOT, TINY, write_params

RunStage = Callable[..., int]
EXPORT = Path("artifacts/export")


def probabilities(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"image": np.load("artifacts/data/test_images.npy")})[0])


def test_the_int8_file_keeps_the_contract_and_computes_in_8_bits(finished_copy: Path) -> None:
    float32, int8 = (onnx.load(EXPORT / name) for name in ("model.onnx", "model.int8.onnx"))
    onnx.checker.check_model(int8, full_check=True)
    assert list(int8.graph.input) == list(float32.graph.input)
    assert list(int8.graph.output) == list(float32.graph.output)
    about = {entry.key: entry.value for entry in int8.metadata_props}
    assert about == {**{entry.key: entry.value for entry in float32.metadata_props}, "precision": "int8"}
    # Every weight of more than one dimension is 8 bits, with a scale for each output channel.
    weights = [tensor for tensor in int8.graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}
    scales = {tensor.name: tensor for tensor in int8.graph.initializer}
    for node in int8.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in {tensor.name for tensor in weights}:
            assert list(scales[node.input[1]].dims) == [scales[node.input[0]].dims[0]]
    assert not any(node.metadata_props or node.doc_string for node in int8.graph.node)
    content = (EXPORT / "model.int8.onnx").read_bytes()
    assert str(ROOT).encode() not in content
    assert tempfile.gettempdir().encode() not in content


def test_its_numbers_are_true(finished_copy: Path) -> None:
    report = json.loads((EXPORT / "export.json").read_text())
    int8, labels = report["int8"], np.load("artifacts/data/test_labels.npy")
    expected, found = (probabilities(EXPORT / name) for name in ("model.onnx", int8["file"]))
    assert int8["test_accuracy"] == pytest.approx((found.argmax(1) == labels).mean())
    assert int8["accuracy_drop"] == pytest.approx(report["test_accuracy"] - int8["test_accuracy"])
    assert int8["agreement"] == pytest.approx((expected.argmax(1) == found.argmax(1)).mean())
    assert int8["bytes"] == (EXPORT / int8["file"]).stat().st_size
    assert int8["size_ratio"] == int8["bytes"] / report["size_bytes"]
    assert int8["speed_up"] == report["latency_ms"]["onnxruntime_batch_64"] / int8["latency_ms"]["batch_64"]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert 0 < np.abs(found - expected).max() < 0.2  # computed differently, but the same network


def test_equal_input_gives_equal_bytes_and_no_file_is_left(
    finished_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    images = np.load("artifacts/data/train_images.npy")[:100]
    for name, calibration in (("a", images), ("b", images), ("c", images // 2)):
        quantize(EXPORT / "model.onnx", calibration, tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c  # darker images give other ranges
    assert list(temporary.iterdir()) == []


def test_without_calibration_images_there_is_no_int8_file(finished_copy: Path, run_stage: RunStage) -> None:
    write_params(finished_copy / "params.yaml", {**TINY, "export.int8_images": 0})
    assert run_stage("export") == 0
    assert sorted(path.name for path in EXPORT.iterdir()) == [
        "evaluation.safetensors",
        "export.json",
        "known.json",
        "model.onnx",
        "numbers.json",
    ]
    assert "int8" not in json.loads((EXPORT / "export.json").read_text())
