"""How networks are written as ONNX files.

The same weights give the same bytes. A file holds what computes the answer and what its numbers mean. It does not say
where the network comes from: no run, commit, data hash, date or path, and no version of the exporter.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx.helper
import torch
from torch import Tensor, nn

from stages.opsets import DEFAULT, LOWEST_EXPORTED, graphs_in, remove_unused, written_for


def export_graph(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    opset: int,
    path: Path,
) -> None:
    """Writes what the exporter makes, with its stack traces and without our metadata.

    ``inputs`` are the names and examples of the arguments of ``forward``, in order; ``dynamic`` names their axes whose
    size is free. Raises UserError if the network cannot be written in this opset.
    """
    assert not network.training, "a graph exported in training mode has random nodes"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            network, tuple(inputs.values()), path, dynamo=True, dynamic_shapes=tuple(dict(dynamic[name]) for name in inputs),
            input_names=list(inputs), output_names=list(outputs), opset_version=max(opset, LOWEST_EXPORTED),
            external_data=False, verbose=False,
        )  # fmt: skip
    if opset < DEFAULT:
        onnx.save(written_for(onnx.load(path), opset), path)


def describe(path: Path, properties: Mapping[str, str]) -> None:
    """Checks the graph and writes its metadata, without what the exporter leaves there, such as stack traces."""
    model = onnx.load(path)
    assert not model.functions, "functions would have to be cleaned, too"
    model.ClearField("producer_version")
    _clean(model.graph)
    remove_unused(model.graph)
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _clean(graph: onnx.GraphProto) -> None:
    """Removes what only the exporter knows from a graph and from the graphs in its nodes."""
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for inner in graphs_in(node):
            _clean(inner)
