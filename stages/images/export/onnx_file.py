"""Writes the network as an ONNX file, whose graph turns decoded uint8 images into probabilities."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from models.images.deploy import Deployed
from models.images.genotype import to_json
from stages.images.data import ImageCard
from stages.onnx_files import describe, export_graph


def write_onnx(deployed: Deployed, card: ImageCard, opset: int, path: Path) -> None:
    """Writes the file: input ``image`` uint8 (batch, H, W, C), output ``probabilities`` float32 (batch, classes)."""
    write_graph(deployed, card, opset, path)
    describe(
        path,
        {
            "class_names": json.dumps(card.classes),
            "image_shape": json.dumps(card.image_shape),
            "genotype": json.dumps(to_json(deployed.network.genotype)),
            **({"pixel_scale": json.dumps(card.pixel_scale)} if card.pixel_scale else {}),
        },
    )


def write_graph(deployed: Deployed, card: ImageCard, opset: int, path: Path) -> None:
    """Writes what the exporter makes, with its stack traces and without our metadata.

    Raises UserError if the network cannot be written in this opset.
    """
    example = torch.zeros((2, *card.image_shape), dtype=torch.uint8)
    export_graph(deployed, {"image": example}, ["probabilities"], {"image": {0: "batch"}}, opset, path)
