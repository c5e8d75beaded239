"""Writes the network as an ONNX file, whose graph turns decoded uint8 images into probabilities."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.helper
import torch

from models.images.deploy import Deployed
from models.images.genotype import to_json
from stages.images.data import ImageCard


def write_onnx(
    deployed: Deployed, card: ImageCard, opset: int, path: Path, origin: Mapping[str, str]
) -> None:
    """Writes the graph: input ``image`` uint8 (batch, H, W, C), output ``probabilities`` float32 (batch, classes).

    The file's metadata describe the network and contain ``origin``, which says where the network comes from.
    """
    assert not deployed.training, "a graph exported in training mode has random nodes"
    example = torch.zeros((2, *card.image_shape), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            deployed, (example,), path, dynamo=True, dynamic_shapes={"image": {0: "batch"}}, input_names=["image"],
            output_names=["probabilities"], opset_version=opset, external_data=False, verbose=False,
        )  # fmt: skip
    _describe(path, deployed, card, origin)


def _describe(path: Path, deployed: Deployed, card: ImageCard, origin: Mapping[str, str]) -> None:
    """Checks the graph and writes its metadata, without the paths that the exporter leaves in its nodes."""
    model = onnx.load(path)
    for node in (
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del node.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    onnx.helper.set_model_props(
        model,
        {
            "class_names": json.dumps(card.classes),
            "image_shape": json.dumps(card.image_shape),
            "genotype": json.dumps(to_json(deployed.network.genotype)),
            "data_sha256": card.sha256,
            **({"pixel_scale": json.dumps(card.pixel_scale)} if card.pixel_scale else {}),
            **origin,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
