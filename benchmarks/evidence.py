"""`python -m benchmarks.evidence cells|spaces FILE.npz`: what searches find on real pictures.

``cells``: every strategy with every penalty in the NAS-Bench-201 cell, whose cells have all been trained, so that
``--table`` tells the accuracy of each one. Beside them random cells, trained at the same size: the best of as many as a
search costs, chosen by validation accuracy, is what a search must beat (Li and Talwalkar, arXiv 1902.07638).

``spaces``: the spaces S1 to S4 of RobustDARTS (arXiv 1909.09656), in which DARTS falls apart: how many skip connections
and noise operations the found cells have, and how large the gap is.

The file has the keys of MedMNIST. Its first ``--images`` training images are searched on, and a quarter as many of the
next ones are for validation. Settings that a case does not name are those of params.yaml. A finished run becomes a line
of ``evidence_cells.jsonl`` or ``evidence_spaces.jsonl`` beside the results, and the same command continues after an
interruption. ``--cases`` runs some of the cases; the tables have all that are finished. Runs in ``evidence_cells.json``
that earlier code made with the same settings stay in the tables, and are not made again unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._evidence_report import RANDOM, cells_picture, cells_report, spaces_report
from benchmarks._trial import Job, Run, read
from benchmarks.stability import PICTURES, RESULTS, Changes, finished, measure, settings
from models.images.genotype import to_json
from models.images.spaces import search_space
from models.search.random_cells import random_cells
from models.training.events import EpochEnd, Event
from models.training.loop import run
from models.training.seeds import generator
from stages.errors import UserError
from stages.images import training
from stages.images.training.inputs import device
from stages.images.training.table import read_benchmark
from stages.plumbing.files import sha256_of
from stages.plumbing.starting import ready

CHANNELS, BATCH = 4, 64
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
STRATEGIES = ("ms-darts", "darts", "sdarts-rs", "single-level", "darts-2nd", "sdarts-adv")
PENALTIES = ("none", "beta", "entropy", "discretization")
PUBLISHED: Changes = {"search.penalty": "none", "search.mean_shift.radius_end": 0.25}
COMMON: Changes = {
    "data.name": "npz",
    "data.mirror": True,
    "search.batch_size": BATCH,
    "search.channels": CHANNELS,
    "search.landscape": 0,
    "retrain.channels": CHANNELS,
    "retrain.batch_size": BATCH,
}


def cell_cases() -> dict[str, Changes]:
    """Every strategy with every penalty, and MS-DARTS with its published radius and a tenth of the alpha rate."""
    cases: dict[str, Changes] = {
        f"{strategy}, {penalty}": {"search.strategy": strategy, "search.penalty": penalty}
        for strategy in STRATEGIES
        for penalty in PENALTIES
    }
    slow = {"search.alpha.learning_rate": 0.01}
    cases["ms-darts, published, alpha rate 0.01"] = {"search.strategy": "ms-darts", **PUBLISHED, **slow}
    kept = {"search.exclude_none": True}
    for name in ("ms-darts, discretization", "ms-darts, beta", "darts, none"):
        cases[f"{name}, no edge may be none"] = {**cases[name], **kept}
    cases["darts, none, alpha rate 0.01"] = {"search.strategy": "darts", "search.penalty": "none", **slow}
    return cases


def space_cases() -> dict[str, Changes]:
    """DARTS, MS-DARTS as published, and the default search in each of the four spaces."""
    searches: dict[str, Changes] = {
        "darts, none": {"search.strategy": "darts", "search.penalty": "none"},
        "ms-darts, published": {"search.strategy": "ms-darts", **PUBLISHED},
        "ms-darts, discretization": {"search.strategy": "ms-darts", "search.penalty": "discretization"},
    }
    return {
        f"{space}: {name}": {"search.space": space, **changes}
        for space in ("s1", "s2", "s3", "s4")
        for name, changes in searches.items()
    }


CASES = {"cells": cell_cases(), "spaces": space_cases()}
SIZES: Mapping[str, Changes] = {
    "cells": {
        "search.space": "nasbench201",
        "search.exclude_none": False,
        "search.cells": 1,
        "search.stages": 3,
        "retrain.cells": 1,
        "retrain.stages": 3,
    },
    "spaces": {"search.cells": 3, "search.stages": 3, "retrain.cells": 3, "retrain.stages": 3},
}


@dataclass(frozen=True)
class RandomCell(Job):
    """The training of the random cell number ``seed``, on the images of the searches."""

    def __call__(self) -> Run:
        start = time.process_time()
        data, _ = read(self.params.data)
        source = generator(0, "random cells")
        genotype = next(islice(random_cells(search_space("nasbench201"), source), self.seed, None))
        accuracies: list[float] = []

        def on_event(event: Event) -> None:
            if isinstance(event, EpochEnd):
                accuracies.append(float(event.row["valid_accuracy"] or 0))

        run(training.retrain_on(data, self.params, genotype), on_event=on_event)
        benchmark, _ = read_benchmark(self.params.search)
        return {
            "key": self.key,
            "case": self.case,
            "seed": self.seed,
            "valid_accuracy": max(accuracies),
            "accuracy": None if benchmark is None else benchmark.standing(genotype).accuracy / 100,
            "genotype": to_json(genotype),
            "cpu_seconds": round(time.process_time() - start, 1),
            "date": _machine.today(),
            "machine": _machine.hardware(device()),
        }


def jobs(arguments: argparse.Namespace, file: Path) -> list[Job]:
    """The runs seed by seed, so that an interruption leaves runs that can be compared. Random cells come last."""
    side = {"data.image_size": arguments.side, "data.root": str(file)}
    common = {**COMMON, **SIZES[arguments.what], **side, "search.epochs": arguments.epochs}
    common["search.benchmark_table"] = arguments.table
    common["search.alpha.warmup_epochs"] = min(2, arguments.epochs - 1)
    wanted: list[Job] = [
        Job(name, settings({**common, **CASES[arguments.what][name], "search.seed": seed}), True, False)
        for seed in range(arguments.seeds)
        for name in arguments.cases
        if name != RANDOM
    ]
    if RANDOM in arguments.cases:
        common["retrain.epochs"] = arguments.random_epochs
        for number in range(arguments.random):  # also the seed of the training
            params = settings({**common, "search.seed": number, "retrain.seed": number})
            wanted.append(RandomCell(RANDOM, params, True, False))
    return wanted


def subset(file: Path, images: int, folder: Path) -> Path:
    """The file with its first ``images`` training images, a quarter as many of the next for validation, and as many
    test images, which are not used."""
    if not file.is_file():
        raise UserError(f"{file} is not a file; name an .npz with the keys of MedMNIST")
    path = folder / f"evidence-{sha256_of(file)[:8]}-{images}.npz"
    if not path.exists():
        with np.load(file) as content:
            if absent := [name for name in KEYS if name not in content.files]:
                raise UserError(f"{file} has no {absent[0]}; name an .npz with the keys of MedMNIST")
            arrays = {name: content[name] for name in KEYS}
        valid = images // 4
        if len(arrays["train_images"]) < images + valid:
            raise UserError(
                f"{file} has {len(arrays['train_images'])} training images; --images {images} needs {images + valid}"
            )
        parts = {
            "train": ("train", 0, images),
            "val": ("train", images, images + valid),
            "test": ("test", 0, valid),
        }
        made = {
            f"{name}_{what}": arrays[f"{source}_{what}"][start:end]
            for name, (source, start, end) in parts.items()
            for what in ("images", "labels")
        }
        np.savez(path, **made)
    return path


def everything(arguments: argparse.Namespace, file: Path, lines: Path) -> list[Run]:
    """The finished runs of all cases with these sizes: those of this code, also by earlier commands, and those of earlier
    code with the same settings."""
    done, before = finished(lines), earlier(arguments)
    made = {
        (run["case"], run["seed"]) for run in done.values()
    }  # a key takes a fifth of a second: it reads code and table
    count = 1 + max((run["seed"] for run in [*done.values(), *before.values()]), default=0)
    known = argparse.Namespace(**{**vars(arguments), "cases": known_cases(arguments.what)})
    known.seeds = known.random = count
    return [
        {**run, "settings": job.settings}
        for job in jobs(known, file)
        if (run := ((job.case, job.seed) in made and done.get(job.key)) or before.get(job.settings))
    ]


def earlier(arguments: argparse.Namespace) -> dict[str, Run]:
    """Hash of the settings -> run, from the results that are already written."""
    written = arguments.output / f"evidence_{arguments.what}.json"
    runs = json.loads(written.read_text())["runs"] if written.exists() else []
    return {run["settings"]: run for run in runs}


def known_cases(what: str) -> list[str]:
    return [*CASES[what], *([RANDOM] if what == "cells" else [])]


def line(run: Run) -> str:
    """A run in one line, for people to read."""
    parts = [f"{name} {run[name]:.3f}" for name in MEASURED if run.get(name) is not None]
    return f"{run['case']} seed {run['seed']}: {', '.join(parts)}  ({run['cpu_seconds']:.0f} s)"


MEASURED = ("discretization_gap", "supernet_accuracy", "valid_accuracy", "accuracy")


def describe(arguments: argparse.Namespace, wanted: Sequence[Job], runs: Sequence[Run]) -> dict[str, Any]:
    """What a reader of the results needs to know."""
    search = wanted[0].params.search
    about = {
        "data": f"{Path(arguments.file).name}, the first {arguments.images} training images, the next"
        f" {arguments.images // 4} for validation, at {arguments.side}x{arguments.side}",
        "search": f"{search.channels} channels, {search.cells} cells{' per stage' if arguments.what == 'cells' else ''},"
        f" {search.epochs} epochs, batch {search.batch_size}; what a case does not name is as in params.yaml",
        "hardware": "; ".join(sorted({run["machine"] for run in runs})),
        "versions": _machine.versions(),
        "date": ", ".join(sorted({run["date"] for run in runs})),
        "processes": f"{arguments.workers}, one thread each",
    }
    if arguments.what == "cells":
        about["random cells"] = (
            f"trained for {arguments.random_epochs} epochs on the same images, with {search.channels} channels"
        )
    if arguments.note:
        about["beside it"] = arguments.note
    return about


def write(arguments: argparse.Namespace, about: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """The tables, the numbers and, for ``cells``, the picture."""
    stem = f"evidence_{arguments.what}"
    text = cells_report(about, runs) if arguments.what == "cells" else spaces_report(about, runs)
    print(text)
    (arguments.output / f"{stem}.md").write_text(text)
    body = ",\n".join(
        json.dumps({name: value for name, value in run.items() if name != "key"}) for run in runs
    )
    (arguments.output / f"{stem}.json").write_text(
        f'{{"about": {json.dumps(about)},\n"runs": [\n{body}\n]}}\n'
    )
    if arguments.what == "cells":
        cells_picture((PICTURES if arguments.output == RESULTS else arguments.output) / f"{stem}.png", runs)


def options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=CASES)
    parser.add_argument("file", help="an .npz with the keys of MedMNIST")
    parser.add_argument("--table", help="cells: the NAS-Bench-201 table (.csv, .csv.gz) with accuracies")
    parser.add_argument("--cases", nargs="+", help=f"some of the cases (all); cells: also {RANDOM}")
    parser.add_argument("--seeds", type=int, default=4, help="how many (4)")
    parser.add_argument("--random", type=int, default=60, help="number of random cells (60)")
    parser.add_argument("--random-epochs", type=int, default=10, help="epochs of their trainings (10)")
    parser.add_argument("--images", type=int, default=4000, help="training images (4000)")
    parser.add_argument("--side", type=int, default=16, help="of the images, in pixels (16)")
    parser.add_argument("--epochs", type=int, default=30, help="of a search (30)")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (2)")
    parser.add_argument("--again", action="store_true", help="do not take over the runs of earlier code")
    parser.add_argument("--note", help="what else ran on the machine; kept with the results")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args(words)
    for name in ("seeds", "random", "random_epochs", "images", "side", "epochs", "workers"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}; set 1 or more")
    if (arguments.what == "cells") != (arguments.table is not None):
        parser.error("--table gives the accuracy of cells of NAS-Bench-201: cells needs it, spaces has none")
    known = known_cases(arguments.what)
    arguments.cases = arguments.cases or known
    if unknown := [name for name in arguments.cases if name not in known]:
        parser.error(f"--cases has {unknown[0]!r}; the cases are {', '.join(map(repr, known))}")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    arguments = options(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    lines = arguments.output / f"evidence_{arguments.what}.jsonl"
    try:
        file = subset(Path(arguments.file), arguments.images, arguments.output)
        wanted = jobs(arguments, file)
        before = {} if arguments.again else earlier(arguments)
        measure([job for job in wanted if job.settings not in before], lines, arguments.workers, line)
        runs = everything(arguments, file, lines)
    except UserError as error:
        print(f"error: evidence: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evidence: interrupted; the same command carries out the missing runs", file=sys.stderr)
        return 130
    write(arguments, describe(arguments, wanted, runs), runs)
    return 0


if __name__ == "__main__":
    ready()  # main says what a KeyboardInterrupt means
    # Set here and not in main(), so that the worker processes, which import this module, keep the default.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
