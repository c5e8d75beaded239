"""Versions of ONNX: how a file is written for older runtimes.

A runtime refuses a file whose opset (the operators) or IR version (the format of the file) is newer than itself.
Torch's exporter writes opset 18 and later, all in IR version 10, and ignores a lower opset without saying so. ONNX's own
converter has no way back from 18 for Pad and BatchNormalization. The operators of our networks changed little before
18, so the few changes are made here. ONNX's checker then compares every node with the definition of the lower opset.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from stages.errors import UserError

LOWEST, LOWEST_EXPORTED, DEFAULT, HIGHEST = 13, 18, 20, 23
_UNSAID = ("noop_with_empty_axes", "training_mode")  # newer attributes; 0 is what older operators do


def written_for(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model, made with ``max(opset, LOWEST_EXPORTED)``, for runtimes that know this opset. Changes the model.

    Below the default, the IR version is the lowest that the opset allows, because runtimes that need a lower opset need
    this, too. Raises UserError if an operator has no form in this opset.
    """
    (entry,) = model.opset_import
    assert entry.version == max(opset, LOWEST_EXPORTED), "the exporter took another opset"
    if opset >= DEFAULT:
        return model
    if opset < LOWEST_EXPORTED:
        _lower(model.graph)
    entry.version = opset
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split("\n==>")[0].split())
        raise UserError(
            f"export.opset is {opset}, in which this network cannot be written ({reason}); choose a higher one"
        ) from None
    return model


def _lower(graph: onnx.GraphProto) -> None:
    """Writes what changed by opset 18 in the older way, in a graph and in the graphs in its nodes.

    ReduceMean has its axes as an attribute, and newer attributes that are 0 are left out.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in [item for item in node.attribute if item.name in _UNSAID and not item.i]:
            node.attribute.remove(attribute)
        if node.op_type == "ReduceMean" and len(node.input) == 2 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]])
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))
            del node.input[1]
        for inner in graphs_in(node):
            _lower(inner)
    remove_unused(graph)


def remove_unused(graph: onnx.GraphProto) -> None:
    """Removes constants that nothing reads; ONNX Runtime warns about them."""
    used = _read_by(graph)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def graphs_in(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in a node, such as the steps of a loop."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def _read_by(graph: onnx.GraphProto) -> set[str]:
    """The names that a graph, its outputs and the graphs in its nodes read."""
    names = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return names.union(*(_read_by(inner) for node in graph.node for inner in graphs_in(node)))
