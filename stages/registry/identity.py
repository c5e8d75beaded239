"""What a network is, whoever exported it: the hash of what computes its answers.

For an ONNX file this is the graph with its weights, and the metadata that say what the numbers mean, such as class names.
Left out are the exporter's name and version, remarks, stack traces, shapes that follow from the graph, and metadata
about the origin, which files had before it was moved into tags. So a file from then and a file from now are the same
network. Names of values inside the graph count: a graph whose values have other names is another network here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from stages.plumbing.files import sha256_of

if TYPE_CHECKING:
    from onnx import ModelProto

_ORIGIN = frozenset({"git_commit", "run_id", "data_sha256"})
_REMARKS = ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props")


def network_sha256(file: Path) -> str:
    """The hash of the network in a file. A file that is not an ONNX model is its name and its bytes."""
    if file.suffix != ".onnx":
        return sha256_of(file)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(file)
    except DecodeError:
        return sha256_of(file)
    return hashlib.sha256(_bare(model).SerializeToString(deterministic=True)).hexdigest()


def _bare(model: ModelProto) -> ModelProto:
    """The model reduced to what computes its answers. Changes the model that it is given."""
    about = sorted((entry.key, entry.value) for entry in model.metadata_props if entry.key not in _ORIGIN)
    for name in _REMARKS:
        model.ClearField(name)  # pyright: ignore[reportArgumentType]
    for key, value in about:
        model.metadata_props.add(key=key, value=value)
    graph = model.graph
    graph.ClearField("value_info")
    graph.ClearField("name")
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        node.ClearField("name")
    return model
