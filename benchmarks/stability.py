"""`python -m benchmarks.stability`: which strategies fall apart at discretization, on real data and several seeds.

Every run does what the stages prepare, search and retrain do, at a small size and without DVC and MLflow. The split
is that of prepare; the halves and the augmentation are those of search. Gap and eigenvalue are measured on the
validation split, and the test accuracy of the genotype after a short training. Settings that neither ``PROFILE`` nor
the case sets are those of params.yaml. Two processes work, with one thread each.

A finished run becomes a line of ``stability.jsonl`` beside the results. Runs whose settings and code are the same are
taken from this file, so the same command continues after an interruption. Delete the file to measure again.

``--single-level`` compares searches in which weights and architecture move on the same batches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks import _machine
from benchmarks._stability_report import picture, ratio, report
from benchmarks._trial import Job, Run, read
from models.images.families import NASBENCH201, family_of
from models.images.spaces import SPACES
from stages.errors import UserError
from stages.images.params import Params
from stages.images.training.inputs import device
from stages.plumbing.settings import load
from stages.plumbing.starting import ready

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"

Changes = Mapping[str, Any]  # dotted key of params.yaml -> value

PROFILE: Changes = {
    "data.name": "digits",
    "data.image_size": None,
    "data.mirror": "auto",
    "data.valid_fraction": 0.2,
    "data.test_fraction": 0.2,
    "data.seed": 0,
    "search.space": "nasbench201",
    "search.exclude_none": True,
    "search.epochs": 60,
    "search.images": None,
    "search.batch_size": 64,
    "search.channels": 4,
    "search.cells": 1,
    "search.stages": 2,
    "search.alpha.learning_rate": 0.01,
    "search.alpha.warmup_epochs": 2,
    "search.alpha.temperature_end": 1.0,
    "search.penalty": "none",
    "search.mean_shift.radius_end": 0.25,
    "search.landscape": 0,
    "retrain.epochs": 15,
    "retrain.channels": 8,
    "retrain.cells": 1,
    "retrain.stages": 2,
}
SINGLE_LEVEL: Changes = {"search.alpha.learning_rate": 0.1, "search.epochs": 100}
STRATEGY_CASES: Mapping[str, Changes] = {
    "darts": {"search.strategy": "darts"},
    "darts-2nd": {"search.strategy": "darts-2nd"},
    "sdarts-rs": {"search.strategy": "sdarts-rs"},
    "sdarts-adv": {"search.strategy": "sdarts-adv"},
    "ms-darts": {"search.strategy": "ms-darts", "search.mean_shift.bandwidth": 1.0},
    "ms-darts auto": {"search.strategy": "ms-darts", "search.mean_shift.bandwidth": "auto"},
}
DEFAULT_CASES = ("darts", "sdarts-rs", "ms-darts", "ms-darts auto")
SEEDS, SINGLE_LEVEL_SEEDS = 4, 3


def settings(changes: Changes) -> Params:
    """params.yaml of the task images with some keys changed. Raises UserError, as ``load`` does."""
    params = load(ROOT / "params.yaml", {"task": "images", **changes})
    assert isinstance(params, Params)
    return params


def single_level_cases(images: int) -> dict[str, Changes]:
    """Both relaxations, on all training images and, as a control, on half of them, as the weights of DARTS have."""
    return {
        f"{relaxation}, {part}": {
            "search.strategy": "single-level",
            "search.single_level.relaxation": relaxation,
            "search.images": count,
        }
        for relaxation in ("sigmoid", "softmax")
        for part, count in (("all data", None), ("half the data", images // 2))
    }


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """The runs seed by seed, so that an interruption leaves runs that can be compared."""
    family = family_of(SPACES[arguments.space])
    changes = dict(PROFILE)
    if family.stages is not None:  # the smallest network that has every cell type
        for section in ("search", "retrain"):
            changes |= {f"{section}.cells": family.minimum_cells, f"{section}.stages": family.stages}
    changes |= {"search.space": arguments.space, "search.benchmark_table": arguments.table}
    if arguments.single_level:
        changes |= SINGLE_LEVEL
        cases = single_level_cases(len(read(settings(changes).data)[0].train))
    else:
        cases = {name: STRATEGY_CASES[name] for name in arguments.strategies}
    if arguments.epochs is not None:
        changes["search.epochs"] = arguments.epochs
    if arguments.retrain_epochs:
        changes["retrain.epochs"] = arguments.retrain_epochs
    epochs = changes["search.epochs"]
    # A very short search should still move its architecture.
    changes["search.alpha.warmup_epochs"] = min(changes["search.alpha.warmup_epochs"], epochs - 1)
    # Two windows are longer than the history: no search stops early, but each epoch measures the eigenvalue.
    changes["search.early_stopping.watch"] = "none" if arguments.single_level else "eigenvalue"
    changes["search.early_stopping.window"] = epochs
    return [
        Job(
            name,
            settings({**changes, **case, "search.seed": seed, "retrain.seed": seed}),
            crop=not arguments.no_crop,
            retrained=arguments.retrain_epochs != 0,
        )
        for seed in range(arguments.seeds)
        for name, case in cases.items()
    ]


def finished(path: Path) -> dict[str, Run]:
    """Key -> run, from a file of JSON lines. Leaves out a line that an interruption has cut short."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            run = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[run["key"]] = run
    return found


def missing_runs(missing: Sequence[Job], workers: int) -> Iterator[Run]:
    """Yields each run as soon as it has finished."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in as_completed([pool.submit(job) for job in missing]):
            yield future.result()
    except BaseException:  # also an interruption, which does not wait for the workers' runs
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def line(run: Run) -> str:
    """A run in one line, for people to read."""
    parts = [f"{run['case']} seed {run['seed']}: gap {run['discretization_gap']:.3f}"]
    if "hessian_eigenvalue" in run:
        parts.append(f"eigenvalue {run['hessian_eigenvalue']:.2f}")
    if run["accuracy"] is not None:
        parts.append(f"accuracy {run['accuracy']:.3f}")
    parts.append(f"{run['plain_edges']} plain edges{', collapsed' if run['collapsed'] else ''}")
    return ", ".join(parts) + f"  ({run['seconds']:.0f} s)"


def measure(wanted: Sequence[Job], path: Path, workers: int, line: Callable[[Run], str] = line) -> list[Run]:
    """All runs, in the order of the jobs: those in the file, and the missing ones, which are carried out.

    ``line`` describes a run for people to read.
    """
    done = finished(path)
    missing = [job for job in wanted if job.key not in done]
    print(f"{path.stem}: {len(missing)} of {len(wanted)} runs to do, {workers} at a time", flush=True)
    # Rewritten without a line cut short, so that each new line starts a line of its own.
    path.write_text("".join(json.dumps(run) + "\n" for run in done.values()))
    start = time.monotonic()
    with path.open("a") as file:
        for count, run in enumerate(missing_runs(missing, workers) if missing else (), start=1):
            file.write(json.dumps(run) + "\n")
            file.flush()
            done[run["key"]] = run
            left = (time.monotonic() - start) / count * (len(missing) - count)
            print(f"{count}/{len(missing)}  {line(run)}  {left / 60:.1f} min left", flush=True)
    return [done[job.key] for job in wanted]


def write(arguments: argparse.Namespace, stem: str, about: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """The table, the numbers and the picture."""
    judged = "tabulated accuracy" if arguments.table else "test accuracy"
    title = "Stability of single-level search" if arguments.single_level else "Stability of search"
    text = report(about, runs, title, judged)
    print(text)
    (arguments.output / f"{stem}.md").write_text(text)
    # One run per line: the file is short, and a diff shows which run has changed.
    body = ",\n".join(
        json.dumps({name: value for name, value in run.items() if name != "key"}) for run in runs
    )
    head = json.dumps({"about": about, "ratio": ratio(runs)}, indent=1)
    (arguments.output / f"{stem}.json").write_text(f'{head[:-2]},\n "runs": [\n{body}\n ]\n}}\n')
    picture((PICTURES if arguments.output == RESULTS else arguments.output) / f"{stem}.png", runs)


def describe_runs(wanted: Sequence[Job], arguments: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the results needs to know."""
    config, retrain = wanted[0].params.search, wanted[0].params.retrain
    about = {
        "data": f"{wanted[0].params.data.name}, split as by prepare (seed {wanted[0].params.data.seed}), "
        + ("crop by an eighth of the side" if wanted[0].crop else "no augmentation"),
        "search": f"{config.space}, {config.channels} channels, {config.cells} cells per stage, "
        f"{config.stages} stages, {config.epochs} epochs, batch {config.batch_size}, alpha rate {config.alpha.learning_rate}, "
        f"{config.alpha.warmup_epochs} epochs before alpha moves, the operation none "
        + ("excluded" if config.exclude_none else "allowed"),
    }
    if arguments.table:
        about["accuracy"] = f"of the table {Path(arguments.table).name}"
    elif arguments.retrain_epochs != 0:
        about["test accuracy"] = (
            f"after {retrain.epochs} epochs with {retrain.channels} channels, {retrain.cells} cells per stage, "
            f"{retrain.stages} stages, the epoch chosen on the validation split"
        )
    return {
        **about,
        "hardware": _machine.hardware(device()),
        "processes": f"{arguments.workers}, one thread each",
        "versions": _machine.versions(),
    }


def options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGY_CASES, default=DEFAULT_CASES)
    parser.add_argument(
        "--seeds", type=int, help=f"how many, from seed 0 on ({SEEDS}; single-level: {SINGLE_LEVEL_SEEDS})"
    )
    parser.add_argument("--space", choices=tuple(SPACES), default=PROFILE["search.space"])
    parser.add_argument("--epochs", type=int, help="epochs of the search (60; single-level: 100)")
    parser.add_argument(
        "--retrain-epochs",
        type=int,
        help="epochs of the short training (15; single-level: 0); 0: no accuracy",
    )
    parser.add_argument(
        "--table", help="NAS-Bench-201 table (.csv, .csv.gz): gives the accuracy instead of the training"
    )
    parser.add_argument(
        "--single-level", action="store_true", help="compare searches with one stream of data"
    )
    parser.add_argument("--no-crop", action="store_true", help="do not crop training images at random")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (2)")
    parser.add_argument("--note", help="what else ran on the machine; kept with the results")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args(words)
    if arguments.table and family_of(SPACES[arguments.space]).table_key is None:
        parser.error(
            f"--table is about cells of {NASBENCH201.name}, but --space is {arguments.space};"
            f" set --space {NASBENCH201.name}"
        )
    if arguments.seeds is None:
        arguments.seeds = SINGLE_LEVEL_SEEDS if arguments.single_level else SEEDS
    if arguments.retrain_epochs is None and arguments.single_level:
        arguments.retrain_epochs = 0
    for name in ("seeds", "workers", "epochs"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; set 1 or more")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    arguments = options(words)
    stem = "stability_single_level" if arguments.single_level else "stability"
    stem += "_no_crop" if arguments.no_crop else ""
    arguments.output.mkdir(parents=True, exist_ok=True)
    before = _machine.load()
    try:
        wanted = jobs(arguments)
        runs = measure(wanted, arguments.output / "stability.jsonl", arguments.workers)
    except UserError as error:
        print(f"error: stability: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stability: interrupted; the same command carries out the missing runs", file=sys.stderr)
        return 130
    about = describe_runs(wanted, arguments)
    about["date"] = ", ".join(sorted({run["date"] for run in runs}))
    about["minutes of processor time"] = f"{sum(run['seconds'] for run in runs) / 60:.1f}"
    about["load before and after"] = f"{before}, {_machine.load()}"
    if arguments.note:
        about["beside it"] = arguments.note
    write(arguments, stem, about, runs)
    return 0


if __name__ == "__main__":
    ready()  # main says what a KeyboardInterrupt means
    # Set here and not in main(), so that the worker processes, which import this module, keep the default.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
