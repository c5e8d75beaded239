"""The fitted curve as an ONNX file: x float32 (batch,) in, y float32 (batch,) out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from stages.curves.data import read_split
from stages.curves.exported import answers, evaluate, one_call
from stages.curves.params import Params
from stages.curves.testing import load_curve

from stages.contracts import ExportResult
from stages.errors import UserError
from stages.evaluation import latency_ms
from stages.plumbing.files import RETRAIN, file_sha256
from stages.records import ExportRecord

MODEL = "model.onnx"


def export(params: Params, folder: Path) -> ExportResult:
    network, path = load_curve(RETRAIN / "weights.safetensors"), folder / MODEL
    x = torch.from_numpy(read_split("test")[:, 0].copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (x[:2],), path, dynamo=True, dynamic_shapes={"x": {0: "batch"}}, input_names=["x"],
            output_names=["y"], opset_version=20, external_data=False, verbose=False,
        )  # fmt: skip
    with torch.no_grad():
        difference = float(np.abs(network(x).numpy() - answers(path, len(x))).max())
    if difference > 1e-4:
        raise UserError(f"ONNX Runtime differs from torch by {difference:.2g}; nothing was exported")
    evaluation = evaluate(path)
    record = ExportRecord(
        file=MODEL,
        test_cases=len(x),
        test_score=evaluation.score,
        largest_difference=difference,
        latency_ms={"onnxruntime_batch_1": latency_ms(one_call(path))},
        threads=torch.get_num_threads(),
        size_bytes=path.stat().st_size,
        params=sum(weight.numel() for weight in network.parameters()),
        model_sha256=file_sha256(path),
    )
    return ExportResult(record, evaluation, [f"{MODEL}, equal to torch within {difference:.1e}"])
