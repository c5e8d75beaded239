"""Exports the retrained network as ONNX files for decoded images, in float32 and in 8 bits, and measures both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.training.costs import count_macs, count_parameters
from stages.contracts import ExportResult
from stages.errors import UserError
from stages.images.data import read_card
from stages.images.export.known import write_known
from stages.images.export.latency import latencies
from stages.images.export.onnx_file import write_onnx
from stages.images.exported import with_onnx
from stages.images.params import BALANCED, ExportParams, Params
from stages.images.testing.cases import Answer, TestSet, evaluation_of, in_batches, read_test_set
from stages.images.testing.with_torch import load_deployed, torch_threads, with_torch
from stages.plumbing.files import KNOWN, RETRAIN, file_sha256
from stages.records import ExportRecord, Int8
from stages.timing import BATCH_SIZES

MODEL, INT8 = "model.onnx", "model.int8.onnx"
_PARITY_BATCHES = (1, 7, 64)  # because an export can be right at one batch size and wrong at another
_TIE = 1e-4  # two probabilities this close count as equal


def export(params: Params, folder: Path) -> ExportResult:
    config, card, test = params.export, read_card(), read_test_set()
    path = folder / MODEL
    deployed = load_deployed(params.retrain, RETRAIN / "weights.safetensors")
    write_onnx(deployed, card, config.opset, path)
    answers = {"torch": with_torch(deployed), "onnxruntime": with_onnx(path, torch_threads())}
    parity, probabilities = compare(answers["torch"], answers["onnxruntime"], test)
    if config.int8_images:
        answers["int8"] = quantized(path, folder / INT8, config)
    taken = latencies(answers, test.images, config.latency_repeats)
    costs = {
        "latency_ms": taken["onnxruntime"]["batch_1"],
        "size_bytes": path.stat().st_size,
        "params": count_parameters(deployed),
        "macs": count_macs(deployed, example_image(card.image_shape)),
    }
    evaluation = evaluation_of(probabilities, test, **costs)
    write_known(folder / KNOWN.name, path, answers["onnxruntime"], card, test)
    record = ExportRecord(
        file=MODEL,
        test_cases=len(test),
        test_score=evaluation.score,
        test_balanced_score=BALANCED.score(evaluation),
        largest_difference=parity.largest_difference,
        agreement=parity.agreement,
        disagreements=parity.disagreements,
        latency_ms={
            f"{name}_{size}": milliseconds
            for name in ("torch", "onnxruntime")
            for size, milliseconds in taken[name].items()
        },
        threads=torch_threads(),
        size_bytes=path.stat().st_size,
        params=int(costs["params"]),
        macs=int(costs["macs"]),
        opset=config.opset,
        model_sha256=file_sha256(path),
    )
    if config.int8_images:
        int8 = weigh(folder, answers["int8"], probabilities, test, taken)
        record = record.model_copy(update={"int8": int8})
    return ExportResult(record, evaluation, lines(record))


@dataclass(frozen=True)
class Parity:
    """How much the answers of ONNX Runtime differ from torch's."""

    largest_difference: float  # between two probabilities
    agreement: float  # share of the images that both put into the same class
    disagreements: int  # images that they put into different classes, ties aside


def compare(ours: Answer, theirs: Answer, test: TestSet) -> tuple[Parity, NDArray[np.float32]]:
    """Compares torch with ONNX Runtime on every test image and at several batch sizes.

    Also returns the probabilities of ONNX Runtime. Raises UserError when the two choose different classes.
    """
    expected, found = in_batches(ours, test.images), in_batches(theirs, test.images)
    largest = float(np.abs(expected - found).max())
    few = test.images[: 2 * max(_PARITY_BATCHES)]
    for size in _PARITY_BATCHES:
        again = in_batches(theirs, few, size)
        largest = max(largest, float(np.abs(expected[: len(again)] - again).max()))
    differ = expected.argmax(1) != found.argmax(1)
    best_two = np.sort(expected, axis=1)[:, -2:]
    tied = best_two[:, 1] - best_two[:, 0] < _TIE
    parity = Parity(largest, float(1 - differ.mean()), int((differ & ~tied).sum()))
    if parity.disagreements:
        raise UserError(
            f"ONNX Runtime and torch choose different classes for {parity.disagreements} test images"
            f" (largest difference {largest:.2g}); nothing was exported; try another export.opset"
        )
    return parity, found


def quantized(path: Path, target: Path, config: ExportParams) -> Answer:
    """Writes the int8 file, calibrated on training images drawn at random, and returns a function that runs it."""
    from stages.images.export.int8 import calibration_images, quantize  # slow to import

    quantize(path, calibration_images(config), target)
    return with_onnx(target, torch_threads())


def weigh(
    folder: Path,
    int8: Answer,
    expected: NDArray[np.float32],
    test: TestSet,
    taken: Mapping[str, Mapping[str, float]],
) -> Int8:
    """Compares the int8 file with the float one, whose probabilities are ``expected``."""
    found, path = in_batches(int8, test.images), folder / INT8
    float32, evaluation = evaluation_of(expected, test).score, evaluation_of(found, test)
    accuracy = evaluation.score
    return Int8(
        file=INT8,
        sha256=file_sha256(path),
        test_accuracy=accuracy,
        test_balanced_accuracy=BALANCED.score(evaluation),
        accuracy_drop=float32 - accuracy,
        agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
        bytes=path.stat().st_size,
        size_ratio=path.stat().st_size / (folder / MODEL).stat().st_size,
        latency_ms=dict(taken["int8"]),
        speed_up=taken["onnxruntime"]["batch_64"] / taken["int8"]["batch_64"],
        speed_up_batch_1=taken["onnxruntime"]["batch_1"] / taken["int8"]["batch_1"],
    )


def lines(record: ExportRecord) -> list[str]:
    """What the stage prints about the files."""
    said = [
        f"{record.file}, {record.size_bytes / 1e6:.2f} MB, differs from torch by at most"
        f" {record.largest_difference:.1e} on {record.test_cases} test images"
    ]
    if int8 := record.int8:
        said.append(
            f"{int8.file}, {int8.bytes / 1e6:.2f} MB, {abs(1 / int8.speed_up - 1):.0%}"
            f" {'less' if int8.speed_up > 1 else 'more'} time for {BATCH_SIZES[-1]} images than float32,"
            f" accuracy {100 * int8.accuracy_drop:.2f} percentage points lower"
        )
    return said


def example_image(shape: tuple[int, int, int]) -> torch.Tensor:
    """One black image in the form that the network takes: decoded, in a batch of 1."""
    return torch.zeros((1, *shape), dtype=torch.uint8)
