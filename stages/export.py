"""export: the retrained network as an ONNX file that takes decoded images, proved equal to torch on the whole test set.

Beside it the same network in 8 bits, and what they cost.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnxruntime
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.describe import count_macs, count_parameters
from models.images.batches import Split
from models.images.deploy import Deployed
from models.images.genotype import to_json
from models.training.seeds import generator
from stages.errors import MachineError, UserError
from stages.images.data import Data, read_data
from stages.images.int8 import quantize
from stages.params import ExportParams, Params
from stages.plumbing.files import EXPORT, GENOTYPE, RETRAIN, replacing, sha256_of, write_json
from stages.plumbing.runtime import run
from stages.plumbing.tracking import git_commit, stage_run
from stages.retrain import build_network, read_genotype

BATCH_SIZES = (1, 64)  # images at once where latency is measured
_PARITY_BATCHES = (1, 7, 64)  # exporters have been right at one batch size and wrong at others
INT8 = "model.int8.onnx"
Answer = Callable[[NDArray], NDArray]  # images uint8 (N, H, W, C) -> probabilities float32 (N, classes)
_TIE = 1e-4  # two probabilities this close may change places


def main(params: Params) -> None:
    data, config = read_data(), params.export
    deployed = load_deployed(data, params)
    with stage_run("export", config.model_dump()) as tracked:
        with replacing(EXPORT) as folder:
            path = folder / "model.onnx"
            export(deployed, data, config.opset, path)
            describe(path, deployed, data, tracked.id)
            answers = {"torch": with_torch(deployed), "onnxruntime": with_onnx(path)}
            report = compare(answers["torch"], answers["onnxruntime"], data.test)
            if report["disagreements"]:
                raise MachineError(
                    f"ONNX Runtime and torch choose different classes for {report['disagreements']} test images"
                    f" (largest difference {report['largest_difference']:.2g}); nothing was exported"
                )
            if config.int8_images:
                quantize(path, calibration_images(data, config), folder / INT8)
                answers["int8"] = with_onnx(folder / INT8)
            taken = latencies(answers, data.test, config.latency_repeats)
            report |= {
                "latency_ms": {
                    f"{name}_{size}": taken[name][size]
                    for name in ("torch", "onnxruntime")
                    for size in taken[name]
                },
                "threads": torch.get_num_threads(),
                "size_bytes": path.stat().st_size,
                "params": count_parameters(deployed),
                "macs": count_macs(deployed, data.test.images[:1]),
                "opset": config.opset,
                "model_sha256": sha256_of(path),
            }
            if config.int8_images:
                report["int8"] = {
                    "file": INT8,
                    "sha256": sha256_of(folder / INT8),
                    **compare_int8(answers["onnxruntime"], answers["int8"], data.test),
                    "bytes": (folder / INT8).stat().st_size,
                    "size_ratio": (folder / INT8).stat().st_size / report["size_bytes"],
                    "latency_ms": taken["int8"],
                    "speed_up": taken["onnxruntime"]["batch_64"] / taken["int8"]["batch_64"],
                    "speed_up_batch_1": taken["onnxruntime"]["batch_1"] / taken["int8"]["batch_1"],
                }
            write_json(folder / "export.json", report)
        tracked.metrics(numbers(report))
        tracked.artifacts(EXPORT)
    print(
        f"export: {EXPORT / 'model.onnx'}, {report['size_bytes'] / 1e6:.2f} MB, equal to torch on {report['test_images']}"
        f" test images within {report['largest_difference']:.1e}"
    )
    if int8 := report.get("int8"):
        print(
            f"export: {EXPORT / INT8}, {int8['bytes'] / 1e6:.2f} MB, {int8['speed_up']:.2f} times as fast at batch"
            f" {BATCH_SIZES[-1]}, {100 * int8['accuracy_drop']:.2f} points less accurate"
        )


def numbers(report: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a report, by their names joined with slashes."""
    found = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            found[f"{prefix}{name}"] = value
    return found


def load_deployed(data: Data, params: Params) -> Deployed:
    """The retrained network in evaluation mode on the CPU, with normalization and softmax inside."""
    network = build_network(data, read_genotype(GENOTYPE / "genotype.json"), params.retrain, auxiliary=False)
    path = RETRAIN / "weights.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro retrain` makes it") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not fit the network ({reason}); run `dvc repro retrain`") from None
    return Deployed(network, data.about["mean"], data.about["std"]).eval()


def export(deployed: Deployed, data: Data, opset: int, path: Path) -> None:
    """Writes the graph: input ``image`` uint8 (batch, H, W, C), output ``probabilities`` float32 (batch, classes)."""
    assert not deployed.training, "a graph exported in training mode has random nodes"
    example = torch.zeros((2, *data.image_shape), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            deployed, (example,), path, dynamo=True, dynamic_shapes={"image": {0: "batch"}}, input_names=["image"],
            output_names=["probabilities"], opset_version=opset, external_data=False, verbose=False,
        )  # fmt: skip


def describe(path: Path, deployed: Deployed, data: Data, run_id: str) -> None:
    """Checks the graph and puts what it is into its metadata, without the paths the exporter leaves in its nodes."""
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
            "class_names": json.dumps(data.classes),
            "image_shape": json.dumps(data.image_shape),
            "genotype": json.dumps(to_json(deployed.network.genotype)),
            "data_sha256": data.about["sha256"],
            "git_commit": git_commit(),
            "run_id": run_id,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def with_torch(deployed: Deployed) -> Answer:
    return lambda images: deployed(torch.from_numpy(images)).numpy()


def with_onnx(path: Path) -> Answer:
    """ONNX Runtime on the CPU, with as many threads as torch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"image": images})[0])


def compare(ours: Answer, theirs: Answer, test: Split) -> dict[str, Any]:
    """Torch against ONNX Runtime on every test image, and at several batch sizes."""
    expected, found = predictions(ours, test, 256), predictions(theirs, test, 256)
    largest = float(np.abs(expected - found).max())
    few = Split(test.images[: 2 * max(_PARITY_BATCHES)], test.labels[: 2 * max(_PARITY_BATCHES)])
    for size in _PARITY_BATCHES:
        again = predictions(theirs, few, size)
        largest = max(largest, float(np.abs(expected[: len(again)] - again).max()))
    differ = expected.argmax(1) != found.argmax(1)
    best_two = np.sort(expected, axis=1)[:, -2:]
    tied = best_two[:, 1] - best_two[:, 0] < _TIE
    return {
        "test_images": len(test),
        "test_accuracy": accuracy(found, test),
        "largest_difference": largest,
        "agreement": float(1 - differ.mean()),
        "disagreements": int((differ & ~tied).sum()),
    }


def calibration_images(data: Data, config: ExportParams) -> NDArray[np.uint8]:
    """Training images (N, H, W, C) drawn at random, in their order."""
    order = torch.randperm(len(data.train), generator=generator(config.seed, "calibration"))
    return data.train.images[order[: config.int8_images].sort().values].numpy()


def compare_int8(float32: Answer, int8: Answer, test: Split) -> dict[str, float]:
    """What 8 bits cost: accuracy on every test image, against the float network's."""
    expected, found = predictions(float32, test, 256), predictions(int8, test, 256)
    return {
        "test_accuracy": accuracy(found, test),
        "accuracy_drop": accuracy(expected, test) - accuracy(found, test),
        "agreement": float((expected.argmax(1) == found.argmax(1)).mean()),
    }


@torch.inference_mode()
def predictions(answer: Answer, split: Split, batch_size: int) -> NDArray[np.float32]:
    """Probabilities (N, classes) of a split."""
    images = split.images.numpy()
    return np.concatenate([answer(images[n : n + batch_size]) for n in range(0, len(images), batch_size)])


def accuracy(probabilities: NDArray[np.float32], split: Split) -> float:
    """The share of images whose likeliest class is their label."""
    return float((probabilities.argmax(1) == split.labels.numpy()).mean())


@torch.inference_mode()
def latencies(answers: Mapping[str, Answer], test: Split, repeats: int) -> dict[str, dict[str, float]]:
    """Name -> ``batch_N`` -> median milliseconds of one call; the names take turns, so that all meet the same machine."""
    found: dict[str, dict[str, float]] = {name: {} for name in answers}
    for size in BATCH_SIZES:
        images = np.resize(test.images[:size].numpy(), (size, *test.images.shape[1:]))
        times: dict[str, list[float]] = {name: [] for name in answers}
        for repeat in range(repeats + 3):
            for name, answer in answers.items():
                started = time.perf_counter()
                answer(images)
                if repeat >= 3:  # the first calls warm up
                    times[name].append(1e3 * (time.perf_counter() - started))
        for name, taken in times.items():
            found[name][f"batch_{size}"] = statistics.median(taken)
    return found


if __name__ == "__main__":
    sys.exit(run("export", main))
