"""export: the retrained network as an ONNX file that takes decoded images, proved equal to torch on the whole test set."""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
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

from models.batches import Split
from models.deploy import Deployed
from models.describe import count_macs, count_parameters
from models.genotype import to_json
from stages._data import Data, read_data
from stages._files import EXPORT, GENOTYPE, RETRAIN, replacing, sha256_of, write_json
from stages._runtime import run
from stages._tracking import git_commit, stage_run
from stages.errors import MachineError, UserError
from stages.params import ExportParams, Params
from stages.retrain import build_network, read_genotype

BATCH_SIZES = (1, 64)  # images at once where latency is measured
_PARITY_BATCHES = (1, 7, 64)  # exporters have been right at one batch size and wrong at others
_TIE = 1e-4  # two probabilities this close may change places


def main(params: Params) -> None:
    data = read_data()
    deployed = load_deployed(data, params)
    with stage_run("export", params.export.model_dump()) as tracked:
        with replacing(EXPORT) as folder:
            path = folder / "model.onnx"
            export(deployed, data, params.export.opset, path)
            describe(path, deployed, data, tracked.id)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            report = {
                **compare(deployed, session, data.test),
                "latency_ms": latencies(deployed, session, data.test, params.export),
                "threads": torch.get_num_threads(),
                "size_bytes": path.stat().st_size,
                "params": count_parameters(deployed),
                "macs": count_macs(deployed, data.test.images[:1]),
                "opset": params.export.opset,
                "model_sha256": sha256_of(path),
            }
            if report["disagreements"]:
                raise MachineError(
                    f"ONNX Runtime and torch choose different classes for {report['disagreements']} test images"
                    f" (largest difference {report['largest_difference']:.2g}); nothing was exported"
                )
            write_json(folder / "export.json", report)
        tracked.metrics({name: value for name, value in report.items() if isinstance(value, (int, float))})
        tracked.metrics({f"latency_ms/{name}": value for name, value in report["latency_ms"].items()})
        tracked.artifacts(EXPORT)
    print(
        f"export: {EXPORT / 'model.onnx'}, {report['size_bytes'] / 1e6:.2f} MB, equal to torch on {report['test_images']}"
        f" test images within {report['largest_difference']:.1e}"
    )


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


def compare(deployed: Deployed, session: onnxruntime.InferenceSession, test: Split) -> dict[str, Any]:
    """Torch against ONNX Runtime on every test image, and at several batch sizes."""
    labels = test.labels.numpy()

    def answer(images: NDArray) -> NDArray:
        return np.asarray(session.run(None, {"image": images})[0])

    ours = predictions(lambda images: deployed(torch.from_numpy(images)).numpy(), test, 256)
    theirs = predictions(answer, test, 256)
    largest = float(np.abs(ours - theirs).max())
    few = Split(test.images[: 2 * max(_PARITY_BATCHES)], test.labels[: 2 * max(_PARITY_BATCHES)])
    for size in _PARITY_BATCHES:
        again = predictions(answer, few, size)
        largest = max(largest, float(np.abs(ours[: len(again)] - again).max()))
    differ = ours.argmax(1) != theirs.argmax(1)
    best_two = np.sort(ours, axis=1)[:, -2:]
    tied = best_two[:, 1] - best_two[:, 0] < _TIE
    return {
        "test_images": len(labels),
        "test_accuracy": float((theirs.argmax(1) == labels).mean()),
        "largest_difference": largest,
        "agreement": float(1 - differ.mean()),
        "disagreements": int((differ & ~tied).sum()),
    }


@torch.inference_mode()
def predictions(model: Callable[[NDArray], NDArray], split: Split, batch_size: int) -> NDArray[np.float32]:
    """Probabilities (N, classes) of a split."""
    images = split.images.numpy()
    return np.concatenate([model(images[n : n + batch_size]) for n in range(0, len(images), batch_size)])


def latencies(
    deployed: Deployed, session: onnxruntime.InferenceSession, test: Split, params: ExportParams
) -> dict[str, float]:
    """Median milliseconds of one call, torch and ONNX Runtime in turn, at each batch size."""
    found = {}
    for size in BATCH_SIZES:
        images = np.resize(test.images[:size].numpy(), (size, *test.images.shape[1:]))
        tensor = torch.from_numpy(images)

        def with_torch(tensor: torch.Tensor = tensor) -> None:
            with torch.inference_mode():
                deployed(tensor)

        def with_onnx(images: NDArray = images) -> None:
            session.run(None, {"image": images})

        times: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
        for repeat in range(params.latency_repeats + 3):
            for name, call in (("torch", with_torch), ("onnxruntime", with_onnx)):
                started = time.perf_counter()
                call()
                if repeat >= 3:  # the first calls warm up
                    times[name].append(1e3 * (time.perf_counter() - started))
        found.update({f"{name}_batch_{size}": statistics.median(taken) for name, taken in times.items()})
    return found


if __name__ == "__main__":
    sys.exit(run("export", main))
