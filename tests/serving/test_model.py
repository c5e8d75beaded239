"""A file is served if it keeps the contract of ``model.onnx``, and is refused in one line if not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.arrays import ALL_BITS
from serving.errors import ModelError
from serving.model import Model, Origin, load
from serving.pictures import Pictures
from tests.serving.tiny import network


def changed(**options: Any) -> bytes:
    return network(**options).SerializeToString()


def wrong_input() -> bytes:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    return model.SerializeToString()


def wrong_type() -> bytes:
    identity = helper.make_node("Identity", ["image"], ["probabilities"])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 4, 3])
        for name in ("image", "probabilities")
    ]
    graph = helper.make_graph([identity], "wrong", values[:1], values[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


def not_probabilities() -> bytes:
    model = network()
    model.graph.node[-1].CopyFrom(helper.make_node("Identity", ["logits"], ["probabilities"]))
    return model.SerializeToString()


def fixed_batch() -> bytes:
    model = network()
    shape = onnx.numpy_helper.from_array(np.array([1, 3], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[-1].input[0] = "fixed"
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Reshape", ["logits", "shape"], ["fixed"])
    )
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"hello", "ONNX Runtime cannot load it"),
        (wrong_input(), "input must be image"),
        (wrong_type(), "output must be probabilities"),
        (not_probabilities(), "does not answer a black image with probabilities"),
        (fixed_batch(), "fails on a black image"),
        (changed(metadata={"class_names": '["one"]'}), "class_names must list 3 names"),
        (changed(metadata={"class_names": "one, two"}), "class_names must be JSON"),
        (changed(metadata={"genotype": "[]"}), "genotype must be a JSON object"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused_in_one_line(content: bytes, part: str) -> None:
    with pytest.raises(ModelError) as error:
        load(content, "net", "7", 1)
    assert str(error.value).startswith("model net 7: ")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_without_names_numbers_its_classes() -> None:
    model = network()
    del model.metadata_props[:]
    loaded: Model = load(model.SerializeToString(), "net", "7", 1)
    assert loaded.genotype == {}
    assert loaded.kind == Pictures((8, 8, 3), ("0", "1", "2"), ALL_BITS)


def test_the_origin_is_what_the_registry_knows_or_an_older_file_says() -> None:
    older = {"git_commit": "a" * 40, "run_id": "b" * 32, "data_sha256": "c" * 64}
    tags, nothing = Origin({"run_export": "d" * 32}, "the tags"), Origin({}, "unknown: no tags")
    for metadata, registered, expected in (
        (older, None, Origin(older, "the metadata of the file")),
        (older, nothing, Origin(older, "the metadata of the file")),
        (older, tags, tags),
        ({}, tags, tags),
        ({}, nothing, nothing),
    ):
        assert load(changed(metadata=metadata), "net", "7", 1, registered).origin == expected
    alone = load(changed(), "net", "7", 1).origin
    assert (alone.known, alone.source[:8]) == ({}, "unknown:")


def test_a_grey_model_answers_grey_images() -> None:
    model = load(changed(shape=(4, 4, 1), class_names=("light", "other")), "grey", "1", 1)
    assert model.kind == Pictures((4, 4, 1), ("light", "other"), ALL_BITS)
    answer = model.predict(np.full((2, 4, 4, 1), 200, np.uint8))
    np.testing.assert_allclose(answer, np.full((2, 2), 0.5), atol=1e-6)
