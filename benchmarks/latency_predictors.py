"""`python -m benchmarks.latency_predictors TABLE.csv.gz`: how well predictors order the networks of seven devices.

The table has a column ``arch_str`` (NAS-Bench-201) and one column of milliseconds per device. On each device, every
kind of predictor is fitted to 900 and to 8,000 networks and judged by Spearman's correlation on others. Then each device
in turn is new: 30 of its networks are measured, and predictors of the other devices, fitted to 900, are there.
The result is benchmarks/results/latency-predictors.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import _machine
from models.images.notations import from_arch_str
from models.images.spaces import search_space
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import KINDS, Predictor, fit
from models.search.latency.quality import spearman
from models.training.seeds import generator

RESULT = Path(__file__).parent / "results" / "latency-predictors.md"
TABLE = (
    "table of all edges"  # the additive table with codes that do not say whether an edge leads to the output
)


@dataclass(frozen=True)
class Devices:
    """Codes (N, D) of networks, the same without knowledge of paths, and device -> ms (N,)."""

    codes: Tensor
    plain: Tensor
    ms: Mapping[str, Tensor]


Scores = dict[
    tuple[str, int, str], list[float]
]  # device, samples, kind -> Spearman's correlation of each seed


def read(path: Path) -> Devices:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = list(csv.DictReader(file))
    encoding = Encoding(search_space("nasbench201"))
    codes = encoding.encode_all([from_arch_str(row["arch_str"]) for row in rows])
    names = [name for name in rows[0] if name not in ("index", "arch_str")]
    ms = {name: torch.tensor([float(row[name]) for row in rows]) for name in names}
    return Devices(codes, encoding.without_paths(codes), ms)


def measure(
    devices: Devices, seed: int, sizes: Sequence[int], few: int, held_out: int
) -> tuple[Scores, list[float]]:
    """The scores of one seed, and the seconds of processor time of each fit to ``sizes[0]`` networks."""
    order = torch.randperm(len(devices.codes), generator=generator(seed, "networks"))
    train, test = order[:-held_out], order[-held_out:]
    scores: Scores = {}
    references: dict[str, Predictor] = {}
    seconds: list[float] = []

    def score(device: str, size: int, kind: str, predictor: Predictor, codes: Tensor) -> None:
        scores.setdefault((device, size, kind), []).append(
            spearman(predictor(codes[test]), devices.ms[device][test])
        )

    for device, ms in devices.ms.items():
        for size in sizes:
            some = train[:size]
            started = time.process_time()
            found = fit(devices.codes[some], ms[some], seed=seed)
            if size == sizes[0]:
                seconds.append(time.process_time() - started)
                references[device] = found.predictor
            for kind, predictor in {**found.predictors, "chosen": found.predictor}.items():
                score(device, size, kind, predictor, devices.codes)
            plain = fit(devices.plain[some], ms[some], seed=seed, kinds=("additive",)).predictor
            score(device, size, TABLE, plain, devices.plain)
    for device, ms in devices.ms.items():
        some = train[-few:]
        others = [predictor for name, predictor in references.items() if name != device]
        with_others = fit(devices.codes[some], ms[some], seed=seed, references=others).predictor
        score(device, few, "chosen", with_others, devices.codes)
    return scores, seconds


def report(scores: Scores, seconds: Sequence[float], about: str, sizes: Sequence[int], few: int) -> str:
    names = list(dict.fromkeys(device for device, _, _ in scores))
    lines = [
        "# Predictors of latency on seven devices",
        "",
        *(__doc__ or "").splitlines()[2:-1],
        "",
        about,
        "",
    ]
    lines += [f"A fit to {sizes[0]:,} networks took {max(seconds):.1f} s of processor time at most.", ""]
    for size in sizes:
        kinds = [kind for kind in (*KINDS, "chosen", TABLE) if (names[0], size, kind) in scores]
        lines += [
            f"## {size:,} networks",
            "",
            f"| device | {' | '.join(kinds)} |",
            f"|---|{'---|' * len(kinds)}",
        ]
        lines += [
            f"| {name} | {' | '.join(cell(scores[name, size, kind]) for kind in kinds)} |" for name in names
        ]
        lines.append("")
    lines += [f"## A new device: {few} networks, and predictors of the others", ""]
    lines += [
        f"| device | chosen | less than with {sizes[-1]:,} of its own | {sizes[0]:,}: less than with {sizes[-1]:,} |"
    ]
    lines += ["|---|---|---|---|"]
    for name in names:
        most = statistics.mean(scores[name, sizes[-1], "chosen"])
        short = [most - statistics.mean(scores[name, size, "chosen"]) for size in (few, sizes[0])]
        lines.append(f"| {name} | {cell(scores[name, few, 'chosen'])} | {short[0]:.3f} | {short[1]:.3f} |")
    return "\n".join(lines) + "\n"


def cell(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[900, 8000], help="networks to fit to")
    parser.add_argument("--few", type=int, default=30, help="networks of a new device")
    parser.add_argument("--held-out", type=int, default=2000, help="networks to judge by")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    devices, scores, seconds = read(arguments.table), Scores(), []
    for seed in range(arguments.seeds):
        of_seed, taken = measure(devices, seed, arguments.sizes, arguments.few, arguments.held_out)
        for key, values in of_seed.items():
            scores.setdefault(key, []).extend(values)
        seconds += taken
        about = (
            f"Spearman's correlation on {arguments.held_out:,} networks that nothing was fitted to: mean and standard"
            f"\ndeviation over {seed + 1} draw(s). {_machine.versions()}, one thread of"
            f"\n{_machine.hardware(torch.device('cpu'))}, {_machine.today()}, load {_machine.load()}."
        )
        arguments.output.write_text(report(scores, seconds, about, arguments.sizes, arguments.few))
        print(f"{arguments.output}: {seed + 1} of {arguments.seeds} draws", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
