"""`python -m benchmarks.studies`: what bandwidth, samples, iterations and probed images of the mean shift change.

The searches are those of ``benchmarks.stability`` (the digits in the NAS-Bench-201 cell), with three seeds for each
setting. A finished run becomes a line of ``studies.jsonl`` beside the results, so the same command continues after an
interruption. Tables go to benchmarks/results/studies.md, pictures to docs/pictures/.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._studies_report import DARTS, REFERENCE, pictures, report
from benchmarks._trial import Job, Run
from benchmarks.stability import PICTURES, PROFILE, RESULTS, Changes, measure, settings
from stages.images.training.inputs import device
from stages.plumbing.starting import ready

BANDWIDTHS = (0.1, 0.3, 1.0, 3.0, 10.0, "auto")
SAMPLES, ITERATIONS = (1, 6), (1, 4)  # besides the published 3 and 2
PROBED = (32, 16)  # of the 64 images of a batch


def cases() -> dict[str, Changes]:
    """What each case changes. The published settings are one of the bandwidths."""
    changed: dict[str, Changes] = {
        f"bandwidth {value}": {"search.mean_shift.bandwidth": value} for value in BANDWIDTHS
    }
    changed |= {f"samples {count}": {"search.mean_shift.samples": count} for count in SAMPLES}
    changed |= {f"iterations {count}": {"search.mean_shift.iterations": count} for count in ITERATIONS}
    changed |= {f"probe {count}": {"search.mean_shift.probe_images": count} for count in PROBED}
    shifted = {name: {"search.strategy": "ms-darts", **changes} for name, changes in changed.items()}
    return {DARTS: {"search.strategy": "darts"}, **shifted}


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """The runs seed by seed, so that an interruption leaves runs that can be compared."""
    common = {**PROFILE, "search.epochs": arguments.epochs, "retrain.epochs": arguments.retrain_epochs}
    common["search.landscape"] = 9
    common["search.alpha.warmup_epochs"] = min(PROFILE["search.alpha.warmup_epochs"], arguments.epochs - 1)
    return [
        Job(
            name,
            settings({**common, **case, "search.seed": seed, "retrain.seed": seed}),
            crop=True,
            retrained=True,
            iterates=name == REFERENCE,
        )
        for seed in range(arguments.seeds)
        for name, case in cases().items()
    ]


def describe(wanted: Sequence[Job], runs: Sequence[Run]) -> dict[str, Any]:
    """What a reader of the results needs to know."""
    search, retrain = wanted[0].params.search, wanted[0].params.retrain
    return {
        "search": f"digits, {search.space}, {search.channels} channels, {search.cells} cell per stage, {search.stages}"
        f" stages, {search.epochs} epochs, batch {search.batch_size}, alpha rate {search.alpha.learning_rate:g}",
        "mean shift, unless the row says otherwise": "samples 3, iterations 2, bandwidth 1, all 64 images of a batch",
        "test accuracy": f"after {retrain.epochs} epochs with {retrain.channels} channels",
        "hardware": _machine.hardware(device()),
        "versions": _machine.versions(),
        "date": ", ".join(sorted({run["date"] for run in runs})),
        "processes": "one thread each",
    }


def options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from seed 0 on (3)")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the search (40)")
    parser.add_argument("--retrain-epochs", type=int, default=10, help="epochs of the short training (10)")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (2)")
    parser.add_argument("--note", help="what else ran on the machine; kept with the results")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args(words)
    for name in ("seeds", "workers", "epochs", "retrain_epochs"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}; set 1 or more")
    return arguments


def write(folder: Path, about: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """The tables, the numbers and the pictures."""
    text = report(about, runs)
    print(text)
    (folder / "studies.md").write_text(text)
    kept = [{name: value for name, value in run.items() if name not in ("key", "curves")} for run in runs]
    body = ",\n".join(json.dumps(run) for run in kept)
    (folder / "studies.json").write_text(f'{{"about": {json.dumps(about)},\n"runs": [\n{body}\n]}}\n')
    pictures(PICTURES if folder == RESULTS else folder, runs)


def main(words: Sequence[str] | None = None) -> int:
    arguments = options(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    wanted = jobs(arguments)
    try:
        runs = measure(wanted, arguments.output / "studies.jsonl", arguments.workers)
    except KeyboardInterrupt:
        print("studies: interrupted; the same command carries out the missing runs", file=sys.stderr)
        return 130
    about = describe(wanted, runs)
    if arguments.note:
        about["beside it"] = arguments.note
    write(arguments.output, about, runs)
    return 0


if __name__ == "__main__":
    ready()  # main says what a KeyboardInterrupt means
    # Set here and not in main(), so that the worker processes, which import this module, keep the default.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
