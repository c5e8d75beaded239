"""What must hold after a soak: states, processes, results, registry. Each check returns what is wrong, in words."""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from ruamel.yaml import YAML
from safetensors import safe_open

from benchmarks._faults import Fault
from benchmarks._site import Site

# Faults that may end a run in a state, which is then no lie. An absence of the server is none of them.
EXPLAINED = {
    "Crashed": {("kill", "worker"), ("kill", "host"), ("kill", "flow"), ("stop", "worker"), ("stop", "flow"), ("cut", "network")},
    "Failed": {("full", "disk")},
}  # fmt: skip
AFTER = 180.0  # seconds in which a state may follow the end of its fault: silence is noticed after 75 s, stages are tried three times
WORKSPACES = ".dvc/tmp/exps/flows"
RESULTS = ("data", "search", "genotype", "retrain", "export/model.onnx", "export/evaluation.safetensors")
SEED, OWN = (
    "search.seed",
    0,
)  # the seed of the project's own runs, which have no parameters: only they may promote
LATENCY = "latency_ms"  # the only one of an evaluation's costs that a clock measures
DATA_WAIT = "data_wait"  # the only column of history.csv in which two equal runs differ


@dataclass
class Seen:
    """A flow run as the server knows it."""

    id: str
    seed: int
    scheduled: str
    state: str
    message: str
    began: float | None  # seconds since 1970
    ended: float | None
    same: bool | None = (
        None  # whether its results equal the undisturbed ones, when it was seen to be complete
    )

    @classmethod
    def of(cls, run: FlowRun) -> Seen:
        assert run.state is not None
        return cls(
            str(run.id),
            run.parameters["params"].get(SEED, OWN),
            run.expected_start_time.isoformat() if run.expected_start_time else "",
            run.state.name or run.state.type.value,
            (run.state.message or "").splitlines()[0][:300] if run.state.message else "",
            _stamp(run.start_time),
            _stamp(run.end_time),
        )


def _stamp(time: datetime | None) -> float | None:
    return time.timestamp() if time else None


def wrong_states(runs: Iterable[Seen], faults: Sequence[Fault]) -> list[str]:
    """Runs whose state is not final, or says what no fault explains."""
    wrong = []
    for run in runs:
        if run.state == "Completed":
            continue
        if run.state in EXPLAINED and any(_explains(fault, run) for fault in faults):
            continue
        wrong.append(f"run {run.id[-8:]} (seed {run.seed}) is {run.state}: {run.message}")
    return wrong


def _explains(fault: Fault, run: Seen) -> bool:
    if not fault.hit or (fault.kind, fault.target) not in EXPLAINED[run.state]:
        return False
    begin = run.began or 0.0
    end = run.ended or float("inf")
    return begin - AFTER <= fault.began <= end and end <= fault.began + fault.seconds + AFTER + 300


def digests(project: Path) -> dict[int, dict[str, str]]:
    """The results of the project and of all workspaces that have a network: seed -> file -> hash."""
    found = {}
    for params in [*sorted(project.glob(f"{WORKSPACES}/*/params.yaml")), project / "params.yaml"]:
        artifacts = params.parent / "artifacts"
        if (artifacts / "export/model.onnx").exists():
            seed = YAML(typ="safe").load(params)["search"]["seed"]
            found[seed] = digest(artifacts)
    return found


def restore(site: Site, reference: Mapping[int, Mapping[str, str]]) -> list[int]:
    """Takes what is missing from DVC's cache, as documented for runs that were killed: the folder of the stage that ran is
    missing until the next run. Returns the seeds of these runs."""
    found = digests(site.project)
    missing = [seed for seed in reference if reference[seed].keys() - found.get(seed, {}).keys()]
    for params in site.project.glob(f"{WORKSPACES}/*/params.yaml"):
        if YAML(typ="safe").load(params)["search"]["seed"] in missing:
            site.call("-m", "dvc", "checkout", "--quiet", folder=params.parent)
    if OWN in missing:
        site.call("-m", "dvc", "checkout", "--quiet")
    return missing


def digest(artifacts: Path) -> dict[str, str]:
    """The hash of each result; pictures are drawn from them and left out."""
    paths = [
        path
        for name in RESULTS
        for path in ([artifacts / name] if (artifacts / name).is_file() else sorted((artifacts / name).rglob("*")))
        if path.is_file() and path.suffix != ".png"
    ]  # fmt: skip
    return {str(path.relative_to(artifacts)): hashlib.sha256(_repeatable(path)).hexdigest() for path in paths}


def _repeatable(path: Path) -> bytes:
    """The part of a file that two equal runs share: all but measured times."""
    if path.name == "evaluation.safetensors":
        with safe_open(path, "np") as file:
            said = json.loads((file.metadata() or {})["evaluation"])
            said["costs"].pop(LATENCY)
            tensors = {name: file.get_tensor(name).tobytes().hex() for name in sorted(file.keys())}
        return json.dumps([said, tensors]).encode()
    if path.name != "history.csv":
        return path.read_bytes()
    rows = list(csv.reader(path.read_text().splitlines()))
    kept = [number for number, name in enumerate(rows[0]) if name != DATA_WAIT]
    return "\n".join(",".join(row[number] for number in kept) for row in rows).encode()


def different(mine: Mapping[str, str], reference: Mapping[str, str]) -> list[str]:
    """The files in which two results differ."""
    return sorted(name for name in mine.keys() | reference.keys() if mine.get(name) != reference.get(name))


def registry(project: Path) -> dict[str, Any]:
    """Versions, champions, and the runs of MLflow by state, read from its database."""
    with sqlite3.connect(f"file:{project / 'mlflow.db'}?mode=ro", uri=True) as database:
        versions = database.execute("select count(*) from model_versions").fetchone()[0]
        champions = database.execute(
            "select count(*) from registered_model_aliases where alias = 'champion'"
        ).fetchone()[0]
        states = Counter(row[0] for row in database.execute("select status from runs"))
    return {"versions": versions, "champions": champions, "mlflow runs": dict(sorted(states.items()))}


def orphans(site: Site) -> list[str]:
    """The processes that are left when nothing runs: all but server and worker."""
    kept = {process.pid for role in ("server", "worker") for process in site.processes(role)}
    return [" ".join(process.cmdline())[:120] for process in site.processes() if process.pid not in kept]


def experiments(site: Site) -> int:
    """How many runs are DVC experiments."""
    return len(site.call("-m", "dvc", "exp", "list", "--name-only").split())
