"""What the recipes and their ingredients are worth: trains one published cell on part of CIFAR-10 under each
of them.

    python -m benchmarks.recipe cifar10.npz --images 9000 --epochs 8 --seeds 1

The file has the keys of MedMNIST. Every training is one line of benchmarks/results/recipe.jsonl. Run again,
the program leaves out what is there. ``--report`` prints the lines as a table. All trainings share the
images, the network (that of c10_s5_ms, the cell that MS-DARTS publishes for CIFAR-10), the rate, and no drop
path, label smoothing or cutout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import _machine
from models.images.batches import Split, batches
from models.images.genotype import from_json
from models.images.recipes import LONG, modern
from models.images.retrain import Classification
from models.training.evaluation import evaluate
from models.training.events import EpochEnd, Event
from models.training.loop import run
from stages.images.data import ImageCard
from stages.images.params import Params
from stages.images.training import retrain_on
from stages.images.training.inputs import EVALUATION_BATCH, Images, device
from stages.plumbing.settings import load

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "recipe.jsonl"
CELL = from_json(
    {
        "normal": [
            ["sep_conv_3x3", 1],
            ["sep_conv_3x3", 0],
            ["skip_connect", 0],
            ["sep_conv_3x3", 2],
            ["sep_conv_3x3", 0],
            ["sep_conv_3x3", 1],
            ["sep_conv_3x3", 0],
            ["dil_conv_3x3", 3],
        ],
        "normal_concat": [2, 3, 4, 5],
        "reduce": [
            ["sep_conv_3x3", 0],
            ["avg_pool_3x3", 1],
            ["sep_conv_3x3", 0],
            ["sep_conv_3x3", 2],
            ["max_pool_3x3", 0],
            ["dil_conv_3x3", 3],
            ["sep_conv_3x3", 3],
            ["skip_connect", 2],
        ],
        "reduce_concat": [2, 3, 4, 5],
    }
)
PROFILE: Mapping[str, Any] = {
    "retrain.channels": 8,
    "retrain.cells": 5,
    "retrain.learning_rate": 0.05,
    "retrain.drop_path": 0.0,
    "retrain.label_smoothing": 0.0,
    "retrain.cutout": 0,
    "train.precision": "float32",
}
CASES: Mapping[str, Mapping[str, Any]] = {
    "darts": {},
    "modern": {"recipe": "modern"},
    "modern, as from 100 epochs": {
        "recipe": "modern",
        **{name: getattr(modern(LONG), name) for name in ("cutmix", "mix_probability", "randaugment")},
    },
    "nesterov": {"nesterov": True},
    "warm-up, 1 epoch": {"warmup_epochs": 1},
    "average, 0.999": {"ema_decay": 0.999},
    "average, 0.99": {"ema_decay": 0.99},
    "mixup, alpha 0.2": {"mixup": 0.2},
    "cutmix, every second image": {"cutmix": 1.0, "mix_probability": 0.5},
    "random erasing, 0.25": {"random_erasing": 0.25},
    "randaugment, 1 operation": {"randaugment": 1},
    "darts, rate 0.1": {"learning_rate": 0.1},
    "modern, rate 0.1": {"recipe": "modern", "learning_rate": 0.1},
}


def images(file: Path, count: int, side: int) -> tuple[Images, Split]:
    """The file's first ``count`` images for training, the next ninth as many for validation, and all test
    images.

    Smaller images are means over squares of pixels.
    """
    with np.load(file) as content:
        arrays = {name: torch.from_numpy(content[name]) for name in content.files if name != "class_names"}

    def split(part: str, where: slice) -> Split:
        pixels = arrays[f"{part}_images"][where].permute(0, 3, 1, 2).float()
        pixels = F.adaptive_avg_pool2d(pixels, side).round().to(torch.uint8).permute(0, 2, 3, 1)
        return Split(pixels.contiguous(), arrays[f"{part}_labels"][where].flatten().long())

    train, val, test = (
        split("train", slice(count)),
        split("train", slice(count, count + count // 9)),
        split("test", slice(None)),
    )
    pixels = train.images.double() / 255
    card = ImageCard(
        name="npz",
        classes=[str(number) for number in range(int(test.labels.max()) + 1)],
        image_shape=(side, side, train.images.shape[3]),
        counts={"train": len(train), "val": len(val), "test": len(test)},
        mean=pixels.mean(dim=(0, 1, 2)).tolist(),
        std=pixels.std(dim=(0, 1, 2)).tolist(),
        mirror=True,
        sha256="",
    )
    return Images(train, val, card), test


def settings(changes: Mapping[str, Any]) -> Params:
    params = load(ROOT / "params.yaml", {**PROFILE, **changes})
    assert isinstance(params, Params)
    return params


def trained(data: Images, test: Split, params: Params) -> dict[str, Any]:
    """One training, and the accuracy on the test images of the weights that it keeps."""
    start, seconds = time.perf_counter(), time.process_time()
    program = retrain_on(data, params, CELL)

    def on_event(event: Event) -> None:
        if isinstance(event, EpochEnd):
            print({k: round(v, 4) for k, v in event.row.items() if v is not None}, file=sys.stderr)

    found = run(program, on_event=on_event)  # leaves the best weights in the network
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - seconds}
    plain = data.preprocess(cutout=0, device=device())
    score = evaluate(
        program.network,
        lambda x: program.network(x)[0],
        batches(test, EVALUATION_BATCH, plain),
        Classification(),
    )
    return {
        "test_accuracy": score["accuracy"],
        "test_loss": score["loss"],
        "valid_accuracy": [row["valid_accuracy"] for row in found.history],
        "train_loss": [row["train_loss"] for row in found.history],
        "best_epoch": found.best_epoch,
        **{name: round(value, 1) for name, value in took.items()},
        "recipe": asdict(params.retrain.in_force()),
        "learning_rate": params.retrain.learning_rate,
        "torch": torch.__version__,
        "hardware": _machine.hardware(device()),
        "date": _machine.today(),
    }


def finished() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def report() -> str:
    """The accuracies by size and case, as a table."""
    groups: dict[tuple[int, int, int, str], list[float]] = {}
    for line in finished():
        group = line["side"], line["images"], line["epochs"], line["case"]
        groups.setdefault(group, []).append(line["test_accuracy"])
    rows = ["| pixels | images | epochs | case | n | test accuracy (%) |", "|---|---|---|---|---|---|"]
    for (side, count, epochs, case), values in groups.items():
        spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        accuracy = f"{100 * statistics.mean(values):.2f}{spread}"
        rows.append(f"| {side} | {count} | {epochs} | {case} | {len(values)} | {accuracy} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=32, help="in pixels, to which the images are resized")
    parser.add_argument("--images", type=int, default=9000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--report", action="store_true", help="print what has been measured")
    arguments = parser.parse_args()
    if arguments.report or arguments.data is None:
        print(report())
        return 0
    size = {"side": arguments.side, "images": arguments.images, "epochs": arguments.epochs}
    data, test = images(arguments.data, arguments.images, arguments.side)
    for seed in range(arguments.seeds):
        for case in arguments.cases:
            job = {**size, "case": case, "seed": seed}
            if any(job.items() <= line.items() for line in finished()):
                continue
            changes = {**CASES[case], "epochs": arguments.epochs, "seed": seed}
            params = settings({f"retrain.{name}": value for name, value in changes.items()})
            result = {**job, **trained(data, test, params)}
            RESULTS.parent.mkdir(exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
    print(report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
