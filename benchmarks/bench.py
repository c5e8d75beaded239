"""`python -m benchmarks.bench`: times one search step of every variant and keeps the table in benchmarks/results/.

A variant is an implementation and a method: the plain implementation (benchmarks/plain.py) or the one in models/, each as
DARTS (an architecture step and a weight step) and as MS-DARTS (the mean shift between the two). ``--compiled`` adds MS-DARTS
with ``search.compile``, which compiles only the perturbed passes. The variants take turns, so that a change in the load of the
machine affects all of them; the table gives medians. Peak memory is measured in a process per variant. On CUDA the batch is
64. ``--precision`` is that of all variants, as ``train.precision``: bfloat16 on CUDA and float32 elsewhere by default.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import _machine
from benchmarks._correspondence import copy_weights
from benchmarks.plain import PlainSupernet, mean_shift_mix
from models.images.spaces import search_space
from models.images.supernet import Supernet
from models.images.task import ImageTask
from models.search.gradients import Step as SearchStep
from models.search.gradients import descent_of
from models.search.objective import BatchObjective
from models.search.smoothing import MeanShift, MeanShiftConfig
from models.search.strategies import AlphaConfig, Alternating
from models.training.precision import computing_in, in_float32, resolved, type_of
from models.training.seeds import generator

Step = Callable[[], None]

SIZES: Mapping[str, Mapping[str, int]] = {
    "cifar": {"batch": 16, "channels": 16, "cells": 8, "side": 32, "channels_in": 3},
    "digits": {"batch": 64, "channels": 8, "cells": 5, "side": 8, "channels_in": 1},
}
VARIANTS = ("plain/darts", "plain/ms-darts", "fast/darts", "fast/ms-darts")
COMPILED = "compiled/ms-darts"
DARTS_STEP = {
    "plain": "plain/darts",
    "fast": "fast/darts",
    "compiled": "fast/darts",
}  # DARTS has no perturbed pass
WARM_UP = 2  # rounds that are not timed
RADIUS = 0.1
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Variant:
    """Seconds per step of one variant, and its peak in MiB. ``first`` is the first step, which includes compilation."""

    median: float
    fastest: float
    slowest: float
    first: float
    peak: float | None


def build_step(
    name: str, size: Mapping[str, int], device: torch.device, precision: torch.dtype = torch.float32
) -> Step:
    """A function that makes one search step of a variant, on random images."""
    implementation, method = name.split("/")
    task = ImageTask(search_space("s5"), (size["side"], size["side"], size["channels_in"]), 10, seed=0)
    fast = task.supernet(channels=size["channels"], cells=size["cells"])
    assert isinstance(fast, Supernet)
    fast.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if implementation == "compiled":
        fast.compile_probes()
    shape = (size["batch"], size["channels_in"], size["side"], size["side"])
    draw = generator(0, "bench")
    batches = [
        (
            torch.rand(shape, generator=draw).to(device),
            torch.randint(10, shape[:1], generator=draw).to(device),
        )
        for _ in range(2)
    ]
    if implementation == "plain":
        plain = PlainSupernet(
            task.space,
            channels=size["channels"],
            cells=size["cells"],
            classes=10,
            channels_in=size["channels_in"],
        ).to(device)
        copy_weights(fast, plain)
        return _plain_step(task, plain, method, batches, precision)
    return _fast_step(task, fast, method, batches, precision)


def _plain_step(
    task: ImageTask,
    network: PlainSupernet,
    method: str,
    batches: list[tuple[Tensor, Tensor]],
    precision: torch.dtype,
) -> Step:
    (x, labels), (x_valid, labels_valid) = batches
    alphas = {
        group: (1e-3 * torch.randn(shape, device=x.device)).requires_grad_()
        for group, shape in task.space.shapes().items()
    }
    adam = torch.optim.Adam(alphas.values(), lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    sgd = _sgd(network)

    def loss(x: Tensor, labels: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        with computing_in(precision, x.device):
            logits = network(x, mix)
        return F.cross_entropy(in_float32(logits), labels)

    def step() -> None:
        adam.zero_grad()
        mix = {group: torch.softmax(alpha, dim=-1) for group, alpha in alphas.items()}
        loss(x_valid, labels_valid, mix).backward()
        adam.step()
        mix = {group: torch.softmax(alpha, dim=-1).detach() for group, alpha in alphas.items()}
        if method == "ms-darts":
            with computing_in(precision, x.device):
                mix = mean_shift_mix(
                    network,
                    x,
                    labels,
                    mix,
                    samples=3,
                    iterations=2,
                    bandwidth=1.0,
                    radius=RADIUS,
                )
        sgd.zero_grad()
        loss(x, labels, mix).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        sgd.step()

    return step


def _fast_step(
    task: ImageTask,
    network: nn.Module,
    method: str,
    batches: list[tuple[Tensor, Tensor]],
    precision: torch.dtype,
) -> Step:
    device = batches[0][0].device
    x, x_valid = (images.contiguous(memory_format=torch.channels_last) for images, _ in batches)
    train = BatchObjective(task, network, x, batches[0][1], precision)
    valid = BatchObjective(task, network, x_valid, batches[1][1], precision)
    smoothing = None
    if method == "ms-darts":
        smoothing = MeanShift(MeanShiftConfig(radius_start=RADIUS), 1, generator(0, "mean shift"))
    strategy = Alternating(
        task.space,
        AlphaConfig(warmup_epochs=0),
        generator(0, "alpha"),
        smoothing,
        device=device,
    )
    strategy.start_epoch(0)
    sgd = _sgd(network)

    def step() -> None:
        params = dict(network.named_parameters())
        mix = strategy.step(SearchStep(params, train, valid, lambda: descent_of(sgd, params))).mix
        sgd.zero_grad()
        train(params, mix).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        sgd.step()

    return step


def _sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)


def time_all(
    steps: Mapping[str, Step], repeats: int, device: torch.device
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds of each variant's first step, and of its steps after the warm-up rounds; the variants take turns."""
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(-WARM_UP, repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken = time.perf_counter() - start
            first.setdefault(name, taken)
            if repeat >= 0:
                seconds[name].append(taken)
    return first, seconds


def peak_memory(step: Step, device: torch.device) -> float:
    """Peak MiB during two steps: of the process on the CPU, of the allocator on CUDA."""
    step()
    step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux a process inherits that of the process that started it.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_own_process(name: str, arguments: argparse.Namespace) -> float:
    command = [sys.executable, "-m", "benchmarks.bench", "--peak", name, "--size", arguments.size]
    command += ["--device", arguments.device, "--threads", str(arguments.threads)]
    command += ["--precision", arguments.precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def table(about: Mapping[str, Any], variants: Mapping[str, Variant]) -> str:
    """One measurement as Markdown."""
    lines = [f"- {name}: {value}" for name, value in about.items()]
    lines += [
        "",
        "| step | median s (fastest to slowest) | times as fast as plain | times its DARTS step | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for name, found in variants.items():
        implementation, method = name.split("/")
        faster = variants[f"plain/{method}"].median / found.median
        cost = found.median / variants[DARTS_STEP[implementation]].median
        seconds = f"{found.median:.3f} ({found.fastest:.3f} to {found.slowest:.3f})"
        peak = "-" if found.peak is None else f"{found.peak:.0f}"
        lines.append(f"| {name} | {seconds} | {faster:.2f} | {cost:.2f} | {peak} |")
    if COMPILED in variants:
        compilation = variants[COMPILED].first - variants[COMPILED].median
        lines += [
            "",
            f"Compilation takes {compilation:.0f} s in the first step, which the medians leave out. It takes longer where",
            "PyTorch has no compiled code of an earlier run on disk.",
        ]
    return "\n".join(lines) + "\n"


def keep(folder: Path, title: str, about: Mapping[str, Any], variants: Mapping[str, Variant]) -> None:
    """Replaces the earlier measurement of the same title in bench.json and bench.md."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[title] = {"about": dict(about), "variants": {name: asdict(v) for name, v in variants.items()}}
    path.write_text(json.dumps(kept, indent=2) + "\n")
    parts = ["# One search step\n"]
    for heading, entry in sorted(kept.items()):
        found = {name: Variant(**values) for name, values in entry["variants"].items()}
        parts += [f"## {heading}\n", table(entry["about"], found)]
    (folder / "bench.md").write_text("\n".join(parts))


def options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cifar")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--compiled", action="store_true", help="also time search.compile (minutes of compilation)"
    )
    parser.add_argument("--no-peak", action="store_true", help="do not measure peak memory")
    parser.add_argument("--note", help="what else ran on the machine; kept with the results")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    for name in ("repeats", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; set 1 or more")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    arguments = options(words)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    size = dict(SIZES[arguments.size])
    if device.type == "cuda":
        size["batch"] = 64
    precision = type_of(arguments.precision)
    if arguments.peak:
        print(peak_memory(build_step(arguments.peak, size, device, precision), device))
        return 0
    names = [*VARIANTS, COMPILED] if arguments.compiled else list(VARIANTS)
    before = _machine.load()
    first, seconds = time_all(
        {name: build_step(name, size, device, precision) for name in names}, arguments.repeats, device
    )
    after = _machine.load()
    variants = {
        name: Variant(
            statistics.median(seconds[name]),
            min(seconds[name]),
            max(seconds[name]),
            first[name],
            None if arguments.no_peak else peak_of_own_process(name, arguments),
        )
        for name in names
    }
    about = {
        "size": "space s5, first order, samples 3, iterations 2, "
        + ", ".join(f"{name} {value}" for name, value in size.items()),
        "hardware": _machine.hardware(device),
        "precision": resolved(arguments.precision),
        "threads": arguments.threads,
        "versions": _machine.versions(),
        "date": _machine.today(),
        "repeats": f"{arguments.repeats}, in turns, after {WARM_UP} rounds that are not counted",
        "load before and after": f"{before}, {after}",
    }
    if arguments.note:
        about["beside it"] = arguments.note
    print(table(about, variants))
    lower = "" if precision == torch.float32 else f", {resolved(arguments.precision)}"
    keep(arguments.output, f"{device.type}, {arguments.size}{lower}", about, variants)
    return 0


if __name__ == "__main__":
    sys.exit(main())
