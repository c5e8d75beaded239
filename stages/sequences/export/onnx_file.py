"""Writes the found network as an ONNX file, with what a server needs to know about its series or its text."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from models.sequences.deploy import for_export
from models.sequences.genotype import to_json
from stages.genotypes import read_genotype
from stages.onnx_files import describe, export_graph
from stages.sequences.data import SequenceCard
from stages.sequences.params import TEXT
from stages.sequences.testing.with_torch import deployed


def write_onnx(network: nn.Module, card: SequenceCard, opset: int, path: Path) -> None:
    """Writes the file. Raises UserError if the network cannot be written in this opset."""
    genotype = json.dumps(to_json(read_genotype("sequences")))
    write_graph(network, card, opset, path)
    if card.kind == TEXT:
        about = {"task": "text", "vocabulary": json.dumps(list(card.vocabulary)), "unit": card.unit}
    else:
        about = {"task": "forecasting", "series": json.dumps(_about(card))}
    describe(path, {**about, "genotype": genotype})


def write_graph(network: nn.Module, card: SequenceCard, opset: int, path: Path) -> None:
    """Writes what the exporter makes, without our metadata. Raises UserError."""
    inner = for_export(network)
    if card.kind == TEXT:
        hidden: int = inner.cell.hidden  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
        inputs: dict[str, Tensor] = {
            "tokens": torch.zeros(2, 3, dtype=torch.int64),
            "state": torch.zeros(2, hidden),
        }
        dynamic = {"tokens": {0: "batch", 1: "time"}, "state": {0: "batch"}}
        export_graph(inner, inputs, ["logits", "new_state"], dynamic, opset, path)
        return
    series = {"series": torch.zeros(2, card.lookback, len(card.variables))}
    export_graph(deployed(inner, card), series, ["forecast"], {"series": {0: "batch"}}, opset, path)


def _about(card: SequenceCard) -> dict[str, object]:
    return {
        "targets": list(card.targets),
        "covariates": list(card.covariates),
        "lookback": card.lookback,
        "horizon": card.horizon,
        "step": card.step.model_dump(),
        "zone": card.zone,
        "time": card.time,
        **({"time_format": card.time_format} if card.time_format else {}),
    }
