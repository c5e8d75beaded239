"""Writes what ``benchmarks/serve_load.py`` has measured as Markdown."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks._machine import processor

OURS = "this server, JSON"


@dataclass(frozen=True)
class Target:
    """A server with one request for it."""

    title: str
    port: int
    request: bytes


@dataclass(frozen=True)
class Run:
    """The measurements of one run."""

    seconds: float
    processor_seconds: float  # the server's, with all its threads and processes
    latencies: tuple[float, ...]  # of the requests that were answered
    failed: int  # requests that were refused or failed

    @property
    def goodput(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds


def report(
    runs: Mapping[tuple[str, int], Sequence[Run]],
    goodput: Mapping[int, Sequence[Run]],
    targets: Sequence[Target],
    options: argparse.Namespace,
    shape: Sequence[int],
) -> str:
    """The result as Markdown."""
    return "\n".join(
        [
            "# The server under load",
            "",
            "Made by `benchmarks/serve_load.py`: one image per request; each client has one connection and sends its next",
            f"request when the answer to the last one is there; {options.requests} requests per run, {options.repeats} runs per",
            'case, the servers in turn. Requests per second are the median over the runs (slowest..fastest). "Ours" compares',
            "this server with JSON with that row, turn by turn: the median of the ratios (lowest..highest). Percentiles are over",
            "all requests of all runs. Before the first run, all gave the same probabilities, bit for bit.",
            "",
            "CPU is the server's processor time per request, with all its processes. On a busy machine it says more than the",
            "other columns.",
            "",
            "| clients | server | requests/s | ours | p50 ms | p99 ms | CPU ms | failed |",
            "|---:|---|---:|---:|---:|---:|---:|---:|",
            *_rows(runs, targets),
            "",
            "## Large requests",
            f"Requests of 32 PNG files for {options.seconds:g} s per run, {options.repeats} runs per row, this server. A client whose request is",
            'refused with 503 sends it again at once, without regard to `Retry-After`. "Of the best" compares the answered',
            "requests per second with those of the best row.",
            "",
            "| clients | answered/s | of the best | refused/s | p99 ms of the answered |",
            "|---:|---:|---:|---:|---:|",
            *_goodput_rows(goodput),
            "",
            *_conditions(options, shape),
            "",
        ]
    )


def _rows(runs: Mapping[tuple[str, int], Sequence[Run]], targets: Sequence[Target]) -> list[str]:
    rows = []
    for clients in sorted({clients for _, clients in runs}):
        for target in targets:
            of_case = runs[target.title, clients]
            rates = [run.goodput for run in of_case]
            ratios = [
                mine.goodput / run.goodput for mine, run in zip(runs[OURS, clients], of_case, strict=True)
            ]
            ours = "" if target.title == OURS else _spread(ratios, 1)
            latencies = np.array([latency for run in of_case for latency in run.latencies]) * 1000
            rows.append(
                f"| {clients} | {target.title} | {_spread(rates, 0)} | {ours} | {np.percentile(latencies, 50):.1f} "
                f"| {np.percentile(latencies, 99):.1f} | {_processor_ms(of_case):.2f} | {sum(run.failed for run in of_case)} |"
            )
    return rows


def _goodput_rows(goodput: Mapping[int, Sequence[Run]]) -> list[str]:
    medians = {
        clients: statistics.median(run.goodput for run in of_case) for clients, of_case in goodput.items()
    }
    best = max(medians.values())
    rows = []
    for clients, of_case in goodput.items():
        latencies = np.array([latency for run in of_case for latency in run.latencies]) * 1000
        refused = statistics.median(run.failed / run.seconds for run in of_case)
        rows.append(
            f"| {clients} | {_spread([run.goodput for run in of_case], 1)} | {medians[clients] / best:.0%} | {refused:.0f} "
            f"| {np.percentile(latencies, 99):.0f} |"
        )
    return rows


def _spread(values: Sequence[float], digits: int) -> str:
    """Median (lowest..highest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def _processor_ms(runs: Sequence[Run]) -> float:
    """Milliseconds of the server's processor time per answered request, over all runs of a case."""
    return 1000 * sum(run.processor_seconds for run in runs) / sum(len(run.latencies) for run in runs)


def _conditions(options: argparse.Namespace, shape: Sequence[int]) -> list[str]:
    packages = ("onnxruntime", "mlflow", "fastapi", "uvicorn", "pillow", "numpy")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    if options.litserve:
        script = "from importlib.metadata import version; print(version('litserve'))"
        done = subprocess.run([options.litserve, "-c", script], capture_output=True, text=True, check=True)
        versions += f", litserve {done.stdout.strip()} (batches of up to 32, which wait 2 ms; one worker)"
    return [
        f"- Model: ONNX, {options.model.stat().st_size / 1e6:.1f} MB, images {' x '.join(map(str, shape))}, float32, on the CPU; one image alone",
        f"  takes {_inference_ms(options, shape):.1f} ms in ONNX Runtime with one thread.",
        f"- Machine: {os.cpu_count()} cores, {processor()}. Servers, clients and other processes shared it, so absolute",
        f"  numbers are low. Load average at the end: {os.getloadavg()[0]:.1f}.",
        f"- {datetime.date.today()}, Python {platform.python_version()}, {versions}.",
    ]


def _inference_ms(options: argparse.Namespace, shape: Sequence[int]) -> float:
    """The median milliseconds for one image without any server."""
    import onnxruntime

    one_thread = onnxruntime.SessionOptions()
    one_thread.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(options.model, one_thread)
    image = np.zeros((1, *shape), np.uint8)
    times = []
    for _ in range(100):
        start = time.perf_counter()
        session.run(None, {"image": image})
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
