"""int8: a second ONNX file in which convolutions and the classifier compute in 8 bits.

Static quantization in QDQ form, U8S8 (Jacob et al., arXiv 1712.05877): activations are uint8 with one scale per
tensor, whose range is the extremes on calibration images; weights are int8 with one scale per output channel.
Input, normalization and softmax are not quantized, so the file has the same inputs and outputs as the float one.

The speed depends on the width. With 36 channels the int8 file is faster than the float file. With 16 or fewer it is
slower, because the network then spends more time on moving data than on computing (docs/log.md has the numbers).

On processors without VNNI (x86 before 2019), sums of U8S8 products can saturate. So the accuracy in export.json
holds for the machine that exported the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx.helper
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from models.training.seeds import generator
from stages.images.data import read_split
from stages.images.params import ExportParams

_BATCH = 64  # calibration images at once
# All operators between two convolutions, so that no values are converted back and forth. Softmax is left out, because
# probabilities in 8 bits do not sum to 1.
_QUANTIZED = [
    "Conv",
    "Gemm",
    "MatMul",
    "Relu",
    "Add",
    "Concat",
    "Pad",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
]


def quantize(source: Path, images: NDArray, target: Path) -> None:
    """Writes the int8 form of an ONNX file, calibrated on uint8 images (N, H, W, C). Equal input, equal bytes."""
    with tempfile.TemporaryDirectory(prefix="msdarts-int8-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)  # convolutions need no symbolic shapes
        quantize_static(
            prepared,
            target,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=_QUANTIZED,
        )
    model = onnx.load(target)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)  # the preparation imports every domain that ONNX Runtime knows
    about = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, {**about, "precision": "int8"})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def calibration_images(config: ExportParams) -> NDArray:
    """Training images (N, H, W, C), drawn at random and kept in their original order."""
    images, _ = read_split("train")
    order = torch.randperm(len(images), generator=generator(config.seed, "calibration"))
    return images[order[: config.int8_images].sort().values.numpy()]


class _Calibration(CalibrationDataReader):
    """Gives the images once, in batches."""

    def __init__(self, images: NDArray):
        self.batches = iter([images[n : n + _BATCH] for n in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, NDArray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}
