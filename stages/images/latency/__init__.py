"""The networks for images whose latency is measured: those that the stage export would write, with made-up weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper

from models.images.deploy import Deployed
from models.images.task import found_network
from models.search.genotype import Genotype
from models.training.costs import count_macs
from stages.images.data import read_card
from stages.images.latency.graph import graph_of
from stages.images.params import Params

_PATTERN = np.random.default_rng(0).standard_normal(1024).astype(np.float32)


def size(params: Params) -> Mapping[str, Any]:
    card, config = read_card(), params.retrain
    return {
        "channels": config.channels,
        "cells": config.cells,
        "stages": config.stages,
        "image_shape": list(card.image_shape),
        "classes": len(card.classes),
    }


def inputs(params: Params) -> Mapping[str, Mapping[str, Any]]:
    return {"image": {"shape": list(read_card().image_shape), "type": "uint8", "below": 256}}


def network(params: Params, genotype: Genotype) -> bytes:
    card = read_card()
    model = graph_of(_deployed(params, genotype), card.image_shape, len(card.classes), params.export.opset)
    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT and len(constant.dims) > 1:
            constant.CopyFrom(numpy_helper.from_array(_weights(tuple(constant.dims)), constant.name))
    return model.SerializeToString()


def macs(params: Params, genotype: Genotype) -> int:
    with torch.device("meta"):
        deployed = _deployed(params, genotype)
    return count_macs(deployed, torch.zeros((1, *read_card().image_shape), dtype=torch.uint8))


def opset(params: Params) -> int:
    return params.export.opset


def _deployed(params: Params, genotype: Genotype) -> Deployed:
    card, config = read_card(), params.retrain
    plain = found_network(
        genotype,
        card.image_shape,
        len(card.classes),
        **config.network(),
        auxiliary=False,
    )
    return Deployed(plain, card.mean, card.std).eval()


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    """Weights that repeat 4 KB of numbers, so that a kit of a thousand networks stays small.

    Their scale (He et al., arXiv 1502.01852) keeps activations from shrinking to denormal numbers, which are slow.
    """
    fan_in = int(np.prod(shape[1:]))
    return np.resize(_PATTERN, shape) * np.float32((2 / fan_in) ** 0.5)
