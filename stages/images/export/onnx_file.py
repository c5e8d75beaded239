"""Writes the network as an ONNX file, whose graph turns decoded uint8 images into probabilities.

The same weights give the same bytes. The file holds what computes the answer and what its numbers mean. It does not
say where the network comes from: no run, commit, data hash, date or path, and no version of the exporter.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import onnx
import onnx.helper
import torch

from models.images.deploy import Deployed
from models.images.genotype import to_json
from stages.images.data import ImageCard
from stages.opsets import DEFAULT, LOWEST_EXPORTED, written_for


def write_onnx(deployed: Deployed, card: ImageCard, opset: int, path: Path) -> None:
    """Writes the file: input ``image`` uint8 (batch, H, W, C), output ``probabilities`` float32 (batch, classes)."""
    write_graph(deployed, card, opset, path)
    _describe(path, deployed, card)


def write_graph(deployed: Deployed, card: ImageCard, opset: int, path: Path) -> None:
    """Writes what the exporter makes, with its stack traces and without our metadata.

    Raises UserError if the network cannot be written in this opset.
    """
    assert not deployed.training, "a graph exported in training mode has random nodes"
    example = torch.zeros((2, *card.image_shape), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            deployed, (example,), path, dynamo=True, dynamic_shapes={"image": {0: "batch"}}, input_names=["image"],
            output_names=["probabilities"], opset_version=max(opset, LOWEST_EXPORTED), external_data=False,
            verbose=False,
        )  # fmt: skip
    if opset < DEFAULT:
        onnx.save(written_for(onnx.load(path), opset), path)


def _describe(path: Path, deployed: Deployed, card: ImageCard) -> None:
    """Checks the graph and writes its metadata, without what the exporter leaves there, such as stack traces."""
    model = onnx.load(path)
    assert not model.functions, "functions would have to be cleaned, too"
    model.ClearField("producer_version")
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.helper.set_model_props(
        model,
        {
            "class_names": json.dumps(card.classes),
            "image_shape": json.dumps(card.image_shape),
            "genotype": json.dumps(to_json(deployed.network.genotype)),
            **({"pixel_scale": json.dumps(card.pixel_scale)} if card.pixel_scale else {}),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
