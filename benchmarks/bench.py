"""`python -m benchmarks.bench`: one search step of every variant, timed in one run, as a table kept in benchmarks/results/.

Variants: the plain implementation (benchmarks/plain.py) and the one in models/, each as DARTS
(architecture step and weight step) and as MS-DARTS (the same with the mean shift in between). Repeats are
interleaved, so that a change in the load of the machine meets all alike; medians are reported. Peak memory is that of a
process of its own per variant. On CUDA: batch 64, the fast variant under bfloat16 autocast.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import PlainSupernet, copy_weights, mean_shift_mix
from models.seeds import generator
from models.spaces import search_space
from models.strategies import AlphaConfig, Alternating, MeanShift, MeanShiftConfig
from models.tasks import BatchObjective, ImageTask

Step = Callable[[], None]

SIZES: Mapping[str, Mapping[str, int]] = {
    "cifar": {"batch": 16, "channels": 16, "cells": 8, "side": 32, "channels_in": 3},
    "digits": {"batch": 64, "channels": 8, "cells": 5, "side": 8, "channels_in": 1},
}
IMPLEMENTATIONS = ("plain", "fast")
METHODS = ("darts", "ms-darts")
RADIUS = 0.1
RESULTS = Path(__file__).parent / "results"


def build_step(implementation: str, method: str, size: Mapping[str, int], device: torch.device) -> Step:
    """A search step on random images: ``implementation`` is plain or fast."""
    task = ImageTask(
        search_space("s5"),
        (size["side"], size["side"], size["channels_in"]),
        10,
        seed=0,
    )
    fast = task.supernet(channels=size["channels"], cells=size["cells"])
    fast = fast.to(device=device, memory_format=torch.channels_last)
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
        return _plain_step(task, plain, method, batches)
    return _fast_step(task, fast, method, batches)


def _plain_step(
    task: ImageTask,
    network: PlainSupernet,
    method: str,
    batches: list[tuple[Tensor, Tensor]],
) -> Step:
    (x, labels), (x_valid, labels_valid) = batches
    alphas = {
        group: (1e-3 * torch.randn(shape, device=x.device)).requires_grad_()
        for group, shape in task.space.shapes().items()
    }
    adam = torch.optim.Adam(alphas.values(), lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    sgd = _sgd(network)

    def step() -> None:
        adam.zero_grad()
        mix = {group: torch.softmax(alpha, dim=-1) for group, alpha in alphas.items()}
        F.cross_entropy(network(x_valid, mix), labels_valid).backward()
        adam.step()
        mix = {group: torch.softmax(alpha, dim=-1).detach() for group, alpha in alphas.items()}
        if method == "ms-darts":
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
        F.cross_entropy(network(x, mix), labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        sgd.step()

    return step


def _fast_step(
    task: ImageTask,
    network: nn.Module,
    method: str,
    batches: list[tuple[Tensor, Tensor]],
) -> Step:
    device = batches[0][0].device
    x, x_valid = (images.contiguous(memory_format=torch.channels_last) for images, _ in batches)
    train = BatchObjective(task, network, x, batches[0][1])
    valid = BatchObjective(task, network, x_valid, batches[1][1])
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
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mix = strategy.step(params, train, valid)
            sgd.zero_grad()
            loss = train(params, mix)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        sgd.step()

    return step


def _sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)


def time_all(steps: Mapping[str, Step], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each step over interleaved repeats, after two warm-up rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(-2, repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(step: Step, device: torch.device) -> float:
    """MiB at the peak of two steps: of the process on the CPU, of the allocator on CUDA."""
    step()
    step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _peak_of_own_process(name: str, arguments: argparse.Namespace) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench",
        "--peak",
        name,
        "--size",
        arguments.size,
    ]
    command += ["--device", arguments.device, "--threads", str(torch.get_num_threads())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def table(
    report: Mapping[str, object],
    seconds: Mapping[str, float],
    peaks: Mapping[str, float],
) -> str:
    """The report as Markdown."""
    lines = ["# One search step", ""]
    lines += [f"- {key}: {value}" for key, value in report.items()]
    lines += [
        "",
        "| step | median s | times as fast as plain | times its DARTS step | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for name, value in seconds.items():
        implementation, method = name.split("/")
        faster, cost = (
            seconds[f"plain/{method}"] / value,
            value / seconds[f"{implementation}/darts"],
        )
        lines.append(f"| {name} | {value:.3f} | {faster:.2f} | {cost:.2f} | {peaks[name]:.0f} |")
    return "\n".join(lines) + "\n"


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cifar")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    size = dict(SIZES[arguments.size])
    if device.type == "cuda":
        size["batch"] = 64
    if arguments.peak:
        print(peak_memory(build_step(*arguments.peak.split("/"), size, device), device))
        return
    names = [f"{implementation}/{method}" for implementation in IMPLEMENTATIONS for method in METHODS]
    peaks = {name: _peak_of_own_process(name, arguments) for name in names}
    seconds = time_all(
        {name: build_step(*name.split("/"), size, device) for name in names},
        arguments.repeats,
        device,
    )
    report = {
        "size": arguments.size
        + ", space s5, first order, samples 3, iterations 2, "
        + ", ".join(f"{key} {value}" for key, value in size.items()),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
        "repeats": arguments.repeats,
    }
    text = table(report, seconds, peaks)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{device.type}_{arguments.size}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(
        json.dumps({**report, "seconds": seconds, "peaks": peaks}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
