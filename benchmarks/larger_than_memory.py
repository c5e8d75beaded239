"""Times reading random batches from a data set three times as large as the memory that the process may use.

    python -m benchmarks.larger_than_memory --limit 500

Each case is a process of its own in a control group (root only). Before it, the data are removed from the page cache.
"announced" is what the stages do (stages/plumbing/mapped.py); "plain" maps the file and says nothing to the kernel.
Both must yield the same batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._limit import bytes_read, forget, memory_group
from benchmarks._machine import hardware, load, today, versions
from models.images.batches import Split
from models.training.batches import ShuffledIndices
from models.training.seeds import generator
from stages.plumbing.mapped import announcer

RESULT = Path(__file__).parent / "results" / "larger-than-memory.md"
SIDE = 128
BATCH = 128
ROW_BYTES = SIDE * SIDE * 3
CASES = [(how, limited, cold) for limited, cold in ((True, True), (False, True), (False, False))
         for how in ("plain", "announced")]  # fmt: skip


def main() -> int:
    """Measures, and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=500, help="MiB; PyTorch takes 280 (default: 500)")
    parser.add_argument("--batches", type=int, default=500, help="per case (default: 500)")
    parser.add_argument(
        "--seconds", type=float, default=90, help="after which a case ends early (default: 90)"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--case", nargs=2, metavar=("FILE", "HOW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        file, how = arguments.case
        print(json.dumps(measured(file, how, arguments.batches, arguments.seconds)))
        return 0
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        count = write_images(path, 3 * arguments.limit << 20)
        rows = [in_process(path, *case, arguments) for case in CASES]
    check_equal(rows)
    arguments.output.write_text(table(rows, count, arguments.limit, before))
    return 0


def write_images(path: Path, size: int) -> int:
    """Writes at least so many bytes of random images; returns how many images these are."""
    count = -(-size // ROW_BYTES)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIDE, SIDE, 3))
    random = np.random.default_rng(0)
    for start in range(0, count, 1000):
        part = images[start : start + 1000]
        part[:] = random.integers(0, 256, part.shape, np.uint8)
    images.flush()
    return count


def in_process(
    path: Path, how: str, limited: bool, cold: bool, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One row of the table."""
    if cold:
        forget(path)
    else:
        path.read_bytes()
    words = ["-m", "benchmarks.larger_than_memory", "--case", str(path), how]
    words += ["--batches", str(arguments.batches), "--seconds", str(arguments.seconds)]
    with memory_group(arguments.limit if limited else None) as group:
        done = subprocess.run(
            group.command([sys.executable, *words]), capture_output=True, text=True, check=True
        )
        row = {"how": how, "limited": limited, "cold": cold, "peak": group.peak(), **json.loads(done.stdout)}
    print(row["how"], row["limited"], row["cold"], row["peak"], statistics.median(row["seconds"]), flush=True)
    return row


def measured(file: str, how: str, most: int, seconds: float) -> dict[str, Any]:
    """Reads random batches, as a training step does before it augments them."""
    images = np.load(file, mmap_mode="c")
    announce = announcer(images) if how == "announced" else None
    split = Split(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64), announce)
    order = ShuffledIndices(torch.arange(len(split)), BATCH, generator(0, "batches"))
    taken: list[float] = []
    sums: list[int] = []
    read, worked, start = bytes_read(), 0.0, time.perf_counter()
    while len(taken) < most and time.perf_counter() - start < seconds:
        indices = next(order)
        asked, working = time.perf_counter(), time.process_time()
        batch = split.images_at(indices)
        taken.append(time.perf_counter() - asked)
        worked += time.process_time() - working
        sums.append(zlib.crc32(batch.numpy().data))
    count = len(taken)
    return {"seconds": taken, "sums": sums, "worked": worked / count, "read": (bytes_read() - read) / count}


def check_equal(rows: list[dict[str, Any]]) -> None:
    """Ends with an error when two cases differ in a batch that both have taken."""
    for row in rows:
        shared = min(len(row["sums"]), len(rows[0]["sums"]))
        if row["sums"][:shared] != rows[0]["sums"][:shared]:
            raise SystemExit(f"{row['how']} yields other batches than {rows[0]['how']}")


def table(rows: list[dict[str, Any]], count: int, limit: int, before: str) -> str:
    size = count * ROW_BYTES >> 20
    lines = [
        "# Random batches from a data set larger than the memory",
        "",
        f"Milliseconds for reading a random batch of {BATCH} pictures on one thread, before it is augmented: {count:,}",
        f"pictures of {SIDE} pixels ({size:,} MiB). Peak memory is that of the control group, with its page cache. All",
        "cases read the same batches.",
        "",
        f"- hardware: {hardware(torch.device('cpu'))}",
        f"- versions: {versions()}",
        f"- date: {today()}",
        f"- load average before and after: {before}, {load()}",
        "",
        "| limit | page cache | way | batches | median | mean | 95% | most | processor | from disk | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(line(row, limit) for row in rows),
    ]
    return "\n".join([*lines, ""])


def line(row: Mapping[str, Any], limit: int) -> str:
    times = np.array(row["seconds"]) * 1000
    cells = [
        f"{limit:,} MiB" if row["limited"] else "none",
        "empty" if row["cold"] else "holds all",
        row["how"],
        str(len(times)),
        *(
            f"{value:.1f}"
            for value in (np.median(times), times.mean(), np.quantile(times, 0.95), times.max())
        ),
        f"{row['worked'] * 1000:.1f}",
        f"{row['read'] / 1e6:.1f} MB",
        f"{row['peak']:,} MiB",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
