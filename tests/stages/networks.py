"""Small real networks for the registry's tests: linear classifiers of the digits. More pixels make them better."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from stages.images.exported import evaluate
from stages.plumbing.files import file_sha256

EXPORT, DATA = Path("artifacts/export"), Path("artifacts/data")


def linear(pixels: int, note: str = "", sharpness: float = 30.0, classes: int = 10) -> onnx.ModelProto:
    """Least squares on the first ``pixels`` of the images' 64, as a network with the inputs and outputs of model.onnx.

    A ``note`` changes the file and not the network. Another ``sharpness`` gives another network that is as good.
    """
    images = np.load(DATA / "train_images.npy").reshape(-1, 64)[:, :pixels] / 16
    targets = np.eye(classes)[np.load(DATA / "train_labels.npy")]
    seen = np.column_stack([images, np.ones(len(images))])
    solution = np.linalg.lstsq(seen, targets, rcond=None)[0]
    weights = np.zeros((64, classes))
    weights[:pixels] = solution[:-1] / 16
    constants = {"weights": weights * sharpness, "bias": solution[-1] * sharpness}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["products"]),
            helper.make_node("Add", ["products", "bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], doc_string=note)
    model.ir_version = 10
    return model


def export(model: onnx.ModelProto, **report: object) -> None:
    """Replaces the exported network and evaluation by these, and updates export.json: the hash, or more fields."""
    onnx.save(model, EXPORT / "model.onnx")
    evaluate(EXPORT / "model.onnx").save(EXPORT / "evaluation.safetensors")
    path = EXPORT / "export.json"
    content = {**json.loads(path.read_text()), "model_sha256": file_sha256(EXPORT / "model.onnx"), **report}
    path.write_text(json.dumps(content))


def right(file: Path = EXPORT / "model.onnx") -> np.ndarray:
    """Which test images the network in the file recognizes."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    probabilities = np.asarray(session.run(None, {"image": np.load(DATA / "test_images.npy")})[0])
    return probabilities.argmax(axis=1) == np.load(DATA / "test_labels.npy")
