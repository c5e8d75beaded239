"""`python -m benchmarks.bench`: times one search step of every variant and keeps the table in benchmarks/results/.

benchmarks/_steps.py says what the variants are. They take turns, so that a change in the load of the machine affects
all of them; the table gives medians. Peak memory is measured in a separate process for each variant. ``--compiled``
adds MS-DARTS with ``search.compile``, which compiles only the perturbed passes. On CUDA the batch is 64.
``--precision`` is that of all variants, as ``train.precision``: bfloat16 on CUDA and float32 elsewhere by default.
``--clock processor`` measures processor time instead of elapsed time, because elapsed time depends on what else runs.
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

from benchmarks import _machine
from benchmarks._steps import MEAN_SHIFT, Size, Step, build_step
from models.training.precision import resolved, type_of

SIZES: Mapping[str, Size] = {
    "cifar": {"batch": 16, "channels": 16, "cells": 8, "side": 32, "channels_in": 3},
    "digits": {"batch": 64, "channels": 8, "cells": 5, "side": 8, "channels_in": 1},
}
VARIANTS = (
    "plain/darts",
    "plain/ms-darts",
    "fair/darts",
    "fair/ms-darts",
    "fast/darts",
    "fast/ms-darts",
    "probe-2/ms-darts",
    "probe-4/ms-darts",
    "two-pass/single-level",
    "fast/single-level",
)
COMPILED = "compiled/ms-darts"
REFERENCES = {"darts": "plain/darts", "ms-darts": "plain/ms-darts", "single-level": "two-pass/single-level"}
FAIR = {"darts": "fair/darts", "ms-darts": "fair/ms-darts"}
WARM_UP = 2  # rounds that are not counted
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
RESULTS = Path(__file__).parent / "results"
LEGEND = """
`fast/` is the step of the pipeline, `compiled/` the same with `search.compile`, `probe-N/` the same with the samples of
the mean shift scored on every N-th image of the batch (`search.mean_shift.probe_images`). Their reference is `plain/`, the obvious
code of the same method. `fair/` is `plain/` without two handicaps: it works channels last, as `fast/` does, and its
architecture step does not compute gradients of the weights only to throw them away. `two-pass/single-level` is the
reference of single-level search: the pipeline's step with a pass for alpha and another for the weights. "Times its
DARTS step" compares `plain/` with `plain/darts`, `fair/` with `fair/darts` and all others with `fast/darts`. All steps
of a size begin with the same weights and alpha, and see the same batches.
"""


@dataclass(frozen=True)
class Variant:
    """Seconds per step of one variant, and its peak in MiB. ``first`` is the first step, which includes compilation."""

    median: float
    fastest: float
    slowest: float
    first: float
    peak: float | None


def time_all(
    steps: Mapping[str, Step],
    repeats: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds of each variant's first step, and of its steps after the warm-up rounds. The variants take turns."""
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(-WARM_UP, repeats):
        for name, step in steps.items():
            start = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken = clock() - start
            first.setdefault(name, taken)
            if repeat >= 0:
                seconds[name].append(taken)
    return first, seconds


def peak_memory(step: Step, device: torch.device) -> float:
    """The peak MiB up to the end of two steps: of the process on the CPU, of the allocator on CUDA."""
    step()
    step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which a process on Linux inherits from the process that started it.
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
        "| step | median s (fastest to slowest) | times as fast as its reference | as the fair one"
        " | times its DARTS step | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in variants.items():
        implementation, method = name.split("/")
        faster = variants[REFERENCES[method]].median / found.median
        fair = variants.get(FAIR.get(method, ""))  # measurements before 2026-11-25 lack it
        as_fair = "-" if fair is None else f"{fair.median / found.median:.2f}"
        # A compiled DARTS step would be the fast one, because it has nothing to compile.
        darts = f"{implementation if implementation in ('plain', 'fair') else 'fast'}/darts"
        cost = found.median / variants[darts].median
        seconds = f"{found.median:.3f} ({found.fastest:.3f} to {found.slowest:.3f})"
        peak = "-" if found.peak is None else f"{found.peak:.0f}"
        lines.append(f"| {name} | {seconds} | {faster:.2f} | {as_fair} | {cost:.2f} | {peak} |")
    if COMPILED in variants:
        compilation = variants[COMPILED].first - variants[COMPILED].median
        lines += [
            "",
            f"Compilation takes {compilation:.0f} s in the first step, which the medians leave out. It takes longer if PyTorch",
            "has no compiled code of an earlier run on disk.",
        ]
    return "\n".join(lines) + "\n"


def keep(folder: Path, title: str, about: Mapping[str, Any], variants: Mapping[str, Variant]) -> None:
    """Replaces the earlier measurement of the same title in bench.json and bench.md."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[title] = {"about": dict(about), "variants": {name: asdict(v) for name, v in variants.items()}}
    path.write_text(json.dumps(kept, indent=2) + "\n")
    parts = [f"# One search step\n{LEGEND}"]
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
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="whose seconds are counted")
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
    steps = {name: build_step(name, size, device, precision) for name in names}
    first, seconds = time_all(steps, arguments.repeats, device, CLOCKS[arguments.clock])
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
        "size": f"space s5, first order, samples {MEAN_SHIFT.samples}, iterations {MEAN_SHIFT.iterations}, "
        + ", ".join(f"{name} {value}" for name, value in size.items()),
        "hardware": _machine.hardware(device),
        "precision": resolved(arguments.precision),
        "threads": arguments.threads,
        "clock": arguments.clock,
        "versions": _machine.versions(),
        "date": _machine.today(),
        "repeats": f"{arguments.repeats}, in turns, after {WARM_UP} rounds that are not counted",
        "load before and after": f"{before}, {after}",
    }
    if arguments.note:
        about["beside it"] = arguments.note
    print(table(about, variants))
    lower = "" if precision == torch.float32 else f", {resolved(arguments.precision)}"
    time_of = "" if arguments.clock == "wall" else f", {arguments.clock} time"
    keep(arguments.output, f"{device.type}, {arguments.size}{lower}{time_of}", about, variants)
    return 0


if __name__ == "__main__":
    sys.exit(main())
