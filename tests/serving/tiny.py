"""Makes tiny ONNX files that keep the contract of ``model.onnx``, without torch."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GENOTYPE: dict[str, Any] = {
    "space": "darts",
    "normal": [
        ["sep_conv_3x3", 0],
        ["skip_connect", 1],
        ["dil_conv_5x5", 1],
        ["sep_conv_5x5", 2],
        ["max_pool_3x3", 0],
        ["dil_conv_3x3", 3],
        ["avg_pool_3x3", 2],
        ["sep_conv_3x3", 4],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["max_pool_3x3", 0],
        ["skip_connect", 1],
        ["sep_conv_3x3", 0],
        ["skip_connect", 2],
        ["dil_conv_5x5", 1],
        ["max_pool_3x3", 2],
        ["sep_conv_5x5", 3],
        ["avg_pool_3x3", 4],
    ],
    "reduce_concat": [2, 3, 4, 5],
}
CLASS_NAMES = ("red", "green", "blue")


def network(
    shape: tuple[int, int, int] = (8, 8, 3),
    class_names: Sequence[str] = CLASS_NAMES,
    sharpness: float = 0.05,
    repeats: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Makes a network that names the strongest channel of a picture (class i: channel i modulo channels).

    With ``repeats``, the network also multiplies a large matrix that many times per image, which makes it slow.
    """
    channels = shape[2]
    weight = np.zeros((channels, len(class_names)), np.float32)
    for label in range(len(class_names)):
        weight[label % channels, label] = sharpness
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(weight, "weight"),
    ]
    logits = "logits"
    if repeats:
        logits = "slow_logits"
        slow_nodes, slow_constants = _slow(repeats, channels, len(class_names))
        nodes += slow_nodes
        constants += slow_constants
    nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(class_names)])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    properties = {
        "class_names": json.dumps(list(class_names)),
        "genotype": json.dumps(GENOTYPE),
        "image_shape": json.dumps(list(shape)),
    }
    helper.set_model_props(model, {**properties, **(metadata or {})})
    onnx.checker.check_model(model)
    return model


def _slow(repeats: int, channels: int, classes: int) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Nodes and constants that slowly turn ``logits`` into ``slow_logits`` with the same values."""
    size = 400
    constants = {
        "slow": np.full((size, size), 1e-6, np.float32),
        "nothing": np.zeros((size, classes), np.float32),
        "widen": np.ones((channels, size), np.float32),
        "column": np.ones((size, 1), np.float32),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["mean", "widen"], ["wide0"]),
        # (batch, size) x (size, size) is little work for one image, so each repeat goes through size rows.
        helper.make_node("Unsqueeze", ["wide0", "one"], ["tall0"]),
        helper.make_node("Mul", ["tall0", "column"], ["grid0"]),
    ]
    for step in range(repeats):
        nodes.append(helper.make_node("MatMul", [f"grid{step}", "slow"], [f"grid{step + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"grid{repeats}", "one"], ["narrow"], keepdims=0),
        helper.make_node("MatMul", ["narrow", "nothing"], ["zero"]),
        helper.make_node("Add", ["logits", "zero"], ["slow_logits"]),
    ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def write(path: Path, **options: Any) -> Path:
    """Writes ``network(**options)`` to a file."""
    onnx.save(network(**options), path)
    return path


def write_known(model: Path, pictures: Mapping[str, bytes], **content: Any) -> Path:
    """Writes known.json beside a file, as the stage export does. ``pictures``: class name -> PNG file."""
    listed = [
        {"class_name": name, "media_type": "image/png", "content": base64.b64encode(png).decode()}
        for name, png in pictures.items()
    ]
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    path = model.with_name("known.json")
    path.write_text(json.dumps({"model_sha256": sha256, "pictures": listed, **content}))
    return path


def of_tensors() -> onnx.ModelProto:
    """Makes a network that takes no pictures, with inputs and outputs of many types and several sizes left open.

    ``mixed`` (batch, 4) comes from all floats; ``next`` has the tokens plus one; ``long`` says which are over 9;
    ``inverse`` is 1 / half, so NaN and infinity are possible; ``picked`` looks tokens up in a table of 100.
    """
    types = {"x": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "half": TensorProto.FLOAT16}
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", 4]) for name, kind in types.items()]
    inputs.append(helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"]))
    inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, [1]))
    outputs = [
        helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("next", TensorProto.INT64, ["batch", "time"]),
        helper.make_tensor_value_info("long", TensorProto.BOOL, ["batch", "time"]),
        helper.make_tensor_value_info("inverse", TensorProto.FLOAT16, ["batch", 4]),
        helper.make_tensor_value_info("picked", TensorProto.DOUBLE, ["batch", "time", 3]),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "weight": rng.standard_normal((4, 4)).astype(np.float32),
        "one": np.array(1, np.int64),
        "nine": np.array(9, np.int64),
        "table": rng.standard_normal((100, 3)),
    }
    nodes = [
        helper.make_node("Cast", ["double"], ["narrow"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "narrow"], ["sum"]),
        helper.make_node("Where", ["flag", "sum", "x"], ["mixed"]),
        helper.make_node("Add", ["tokens", "one"], ["next"]),
        helper.make_node("Greater", ["tokens", "nine"], ["long"]),
        helper.make_node("Reciprocal", ["half"], ["inverse"]),
        helper.make_node("Gather", ["table", "tokens"], ["picked"]),
    ]
    named = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tensors", inputs, outputs, named)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
