"""`python -m benchmarks.sequences growth TRAIN.ts TEST.ts` and `python -m benchmarks.sequences speed`.

`growth` searches once with four nodes from the start and once from two nodes to three and four, with the same settings, data
and seeds: how much processor time growing saves, and what it costs in validation loss. The files are those of BasicMotions
(six channels of movement, 40 series of 100 steps each), which the packages sktime and aeon ship; the task is to predict
the next step. Both searches take turns epoch by epoch, so that the load of the machine meets both alike. What is in the
results already is not computed again.

`speed` times a step (forward and backward) of the supercells against the plain loops of benchmarks/plain_sequences.py.

Both write benchmarks/results/sequences.json and sequences.md, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import _sequences_report
from benchmarks._machine import hardware, load, today, versions
from benchmarks.plain_sequences import copy_weights, plain_of
from models.search.gradients import Joint
from models.search.growth import AddNode, Growth, GrowthConfig
from models.search.program import Loaders, Search, SearchConfig
from models.search.smoothing import MeanShift, MeanShiftConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating
from models.sequences.spaces import SPACES, search_space
from models.sequences.supercell import Supercell, supercell_of
from models.sequences.supernet import SequenceSupernet
from models.sequences.task import SeriesCriterion
from models.training.batches import ShuffledIndices
from models.training.evaluation import Batch
from models.training.events import Row, silent
from models.training.seeds import generator, seeded

RESULTS = Path(__file__).parent / "results" / "sequences.json"
PAGE = RESULTS.with_suffix(".md")

# The set-up in which growing was first measured.
HIDDEN, NODES, START, EVERY, EPOCHS, STEPS = 24, 4, 2, 4, 20, 33
CHUNKS, STRIDE = 40, 11  # per batch; steps from the start of a chunk to that of the next
SEEDS = 4
STRATEGIES = ("ms-darts", "single-level")
SIZES = ((24, 24), (32, 24), (32, 48))  # hidden, steps
BATCH, INPUTS, REPEATS = 64, 6, 5


class NextStep(nn.Module):
    """Predicts the next values (B, T, V) at every step of a series (B, T, V)."""

    def __init__(self, cell: Supercell, variables: int):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden, variables)

    def forward(self, x: Tensor, state: Tensor | None, *mix: Any) -> tuple[Tensor, Tensor]:
        outputs, last = self.cell(x, state, *mix)
        return self.head(outputs), last


class Prediction:
    """The next step of series, as a search sees it: the loss is the mean squared error."""

    metric, higher_is_better = "error", False

    def __init__(self, space: SearchSpace):
        self.space = space
        self.generators: Mapping[str, torch.Generator] = {}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"error": F.mse_loss(output.detach(), target) * len(target)}

    def recalibrated(
        self, supernet: nn.Module, output: Callable[[Any], Any], batches: Iterable[Batch]
    ) -> AbstractContextManager[None]:
        return nullcontext()


class Chunks:
    """Batches of chunks and what follows each of their steps, in random order."""

    def __init__(self, series: Tensor, batch_size: int, source: torch.Generator):
        self.series = series
        self.indices = ShuffledIndices(torch.arange(len(series)), batch_size, source)

    def __len__(self) -> int:
        return len(self.indices)

    def __next__(self) -> Batch:
        return _shifted(self.series[next(self.indices)])

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.indices.load_state_dict(state)


def _shifted(series: Tensor) -> Batch:
    return series[:, :-1], series[:, 1:]


def read_ts(path: Path) -> Tensor:
    """Series (cases, steps, channels) of a .ts file: one case per line, channels apart by colons, the class at the end."""
    lines = path.read_text().splitlines()
    rows = [line for line in lines[lines.index("@data") + 1 :] if line]
    cases = [
        [[float(value) for value in channel.split(",")] for channel in row.split(":")[:-1]] for row in rows
    ]
    return torch.tensor(cases).mT


def chunked(series: Tensor, stride: int) -> Tensor:
    """(cases, steps, channels) -> chunks of STEPS steps and the step after them, which begin ``stride`` steps apart."""
    return series.unfold(1, STEPS + 1, stride).mT.flatten(0, 1)


def search(train: Tensor, test: Tensor, strategy: str, seed: int, *, grows: bool) -> Search:
    """One search. ``train`` and ``test`` are chunks, standardized."""
    space = search_space("two-input", NODES)
    start = search_space("two-input", START) if grows else space
    variables = train.shape[2]
    with seeded(seed, "supernet"):
        network = NextStep(supercell_of(start, variables, HIDDEN), variables)
    supernet = SequenceSupernet(cast(Any, network), space.family)
    edits = GrowthConfig([AddNode()] * (NODES - START), every=EVERY)
    single = strategy == "single-level"
    halves = (train, train) if single else (train[::2], train[1::2])
    loaders = Loaders(
        Chunks(halves[0], CHUNKS, generator(seed, "train")),
        None if single else Chunks(halves[1], CHUNKS, generator(seed, "architecture")),
        lambda: _once(test),
        lambda: _once(train),
    )
    return Search(
        Prediction(space),
        supernet,
        _strategy(strategy, start, seed),
        loaders,
        SearchConfig(
            epochs=EPOCHS, optimizer="adam", learning_rate=3e-3, learning_rate_end=3e-3, weight_decay=0.0,
            gradient_clip=1.0, curvature_cases=0,
        ),
        growth=Growth(supernet, edits, generator(seed, "growth")) if grows else None,
    )  # fmt: skip


def _strategy(name: str, space: SearchSpace, seed: int) -> Alternating:
    alpha = AlphaConfig(learning_rate=3e-3, weight_decay=0.0, warmup_epochs=0)
    if name == "single-level":
        return Alternating(space, alpha, generator(seed, "alpha"), estimator=Joint())
    smoothing = MeanShift(MeanShiftConfig(radius_end=0.1), EPOCHS, generator(seed, "smoothing"))
    return Alternating(space, alpha, generator(seed, "alpha"), smoothing)


def _once(chunks: Tensor) -> Iterator[Batch]:
    yield _shifted(chunks)


def growth(results: dict[str, Any], train: Path, test: Path) -> None:
    """Adds the searches that are missing to the results, and writes them after each pair."""
    series, held_out = read_ts(train), read_ts(test)
    mean, std = series.mean(dim=(0, 1)), series.std(dim=(0, 1))
    chunks, held_out = chunked((series - mean) / std, STRIDE), chunked((held_out - mean) / std, STEPS)
    found = results.setdefault("growth", {})
    found["persistence"] = float((held_out[:, 1:] - held_out[:, :-1]).square().mean())
    found["machine"] = machine()
    for strategy in STRATEGIES:
        rows = found.setdefault(strategy, [])
        for seed in range(len(rows), SEEDS):
            programs = {
                name: search(chunks, held_out, strategy, seed, grows=name == "grown")
                for name in ("fixed", "grown")
            }
            row = {"seed": seed, "load": load(), **in_turns(programs)}
            rows.append(row)
            save(results)
            print(strategy, row, flush=True)


def in_turns(programs: Mapping[str, Search]) -> dict[str, dict[str, float]]:
    """The last validation loss of each search and its seconds.

    The searches take turns epoch by epoch, because the load of a machine makes a step faster now and slower then.
    """
    histories: dict[str, list[Row]] = {name: [] for name in programs}
    seconds = dict.fromkeys(programs, 0.0)
    for epoch in range(EPOCHS):
        for name, program in programs.items():
            started = time.process_time()
            for _ in range(program.start_epoch(epoch)):
                program.step()
            histories[name].append(program.end_epoch(histories[name], silent))
            seconds[name] += time.process_time() - started
    for program in programs.values():
        for stream in program.inputs:
            stream.close()
    return {
        name: {"loss": float(rows[-1]["valid_loss"] or 0.0), "seconds": seconds[name]}
        for name, rows in histories.items()
    }


def speed(results: dict[str, Any]) -> None:
    """Seconds of a step, the fastest of some that take turns."""
    rows = []
    for family in SPACES:
        for hidden, steps in SIZES:
            space = search_space(family, NODES)
            with seeded(0, "speed"):
                cells = {
                    "batched": supercell_of(space, INPUTS, hidden),
                    "plain": plain_of(space, INPUTS, hidden),
                }
                x = torch.randn(BATCH, steps, INPUTS)
                mix = {
                    group: torch.randn(shape).softmax(dim=1).requires_grad_()
                    for group, shape in space.shapes().items()
                }
            copy_weights(cells["batched"], cells["plain"])  # pyright: ignore[reportArgumentType]
            seconds = {name: min(timed) for name, timed in _taking_turns(cells, x, mix).items()}
            rows.append({"family": family, "hidden": hidden, "steps": steps, **seconds})
            print(rows[-1], flush=True)
    results["speed"] = {"machine": machine(), "load": load(), "rows": rows}
    save(results)


def _taking_turns(
    cells: Mapping[str, nn.Module], x: Tensor, mix: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in cells}
    for _ in range(REPEATS):
        for name, cell in cells.items():
            started = time.process_time()
            outputs, _ = cell(x, None, mix)
            SeriesCriterion().loss(outputs, torch.zeros_like(F.pad(outputs, (0, 0, 0, 1)))).backward()
            seconds[name].append(time.process_time() - started)
    return seconds


def machine() -> str:
    return f"{hardware(torch.device('cpu'))}; {versions()}; {today()}"


def save(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(_sequences_report.page(results))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("speed")
    growing = parts.add_parser("growth")
    growing.add_argument("train", type=Path, metavar="TRAIN.ts")
    growing.add_argument("test", type=Path, metavar="TEST.ts")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.part == "speed":
        speed(results)
    else:
        growth(results, options.train, options.test)


if __name__ == "__main__":
    main(sys.argv[1:])
