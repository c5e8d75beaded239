"""Writes what a soak found: benchmarks/results/soak.json with everything, soak.md and docs/soak.md with the counts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from benchmarks._site import REPOSITORY

RESULT = REPOSITORY / "benchmarks" / "results" / "soak.json"
TABLES = RESULT.with_suffix(".md")
PAGE = REPOSITORY / "docs" / "soak.md"

_NAMES = {
    ("kill", "worker"): "kill -9 of the worker",
    ("kill", "host"): "kill -9 of the worker and all below it",
    ("kill", "flow"): "kill -9 of the flow",
    ("kill", "stage"): "kill -9 of the stage",
    ("kill", "dvc"): "kill -9 of DVC",
    ("kill", "server"): "kill -9 of the server, started again after 5, 30 or 90 s",
    ("full", "disk"): "full disk for 5, 20 or 45 s",
    ("cut", "network"): "network cut between worker and server for 5, 30 or 90 s",
}
_STOP = "SIGSTOP of a process for 5 to 90 s"


def write(result: dict[str, Any]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TABLES.write_text(f"# Soak\n{tables(result)}", encoding="utf-8")
    PAGE.write_text(page(result), encoding="utf-8")
    print(TABLES.read_text(encoding="utf-8"))


def page(result: dict[str, Any]) -> str:
    """The page for readers: what was done, and what came of it."""
    return f"""# Soak
`python -m benchmarks.soak` runs the pipeline on a schedule while one random fault a minute hits it, and then looks what
became of it. This page is written by that program (`--report` writes it again from
[benchmarks/results/soak.json](../benchmarks/results/soak.json)).

Every {result["every"]:g} minutes, a deployment starts the whole chain with tiny networks, with {result["seeds"]} seeds by turns; from the
second turn on, every stage runs again (`force`). Seed 0 is the project's own, whose runs promote; the others are parameters
of the run, so their networks become challengers. One worker holds one GPU limit, in a network namespace of its own. The
project is on a disk of 1.5 GiB. A worker that has died is started again after 5 s, as by systemd. The order of the faults
follows from a seed ({result["seed"]}).
{tables(result)}
## What is compared
- **States.** No run may be left in a state that is not final. *Crashed* is allowed only after a fault that stopped, killed
  or cut off this run; an absence of the server is none. *Failed* is allowed only after a full disk, because a stage is
  tried three times within 70 s and a disk may be full for longer. *BadInput* is never allowed.
- **Results.** The files of data, search, genotype and retraining, and the exported model with its evaluation, are compared
  byte by byte with those of runs that nothing disturbed (without pictures and measured times: the column `data_wait` of
  history.csv and the latency in evaluation.safetensors). They are compared when a run is seen to be complete, and again at the end, after
  `dvc checkout` where a killed run has left a stage without its folder.
- **Registry.** One champion, no fewer versions than seeds, and an experiment of each seed but the project's own.
- **Processes.** A minute after the last run, server and worker are all that is left; after both were asked to end, nothing.
"""


def tables(result: dict[str, Any]) -> str:
    return "\n".join(
        ["", summary(result), "", fault_table(result), "", run_table(result), "", *wrong(result), ""]
    )


def summary(result: dict[str, Any]) -> str:
    hit = sum(fault["hit"] for fault in result["faults"])
    registry, runs = result["registry"], result["runs"]
    same = sum(run["same"] is True for run in runs)
    complete = sum(run["state"] == "Completed" for run in runs)
    return (
        f"{result['date']}, {result['machine']}, load {result['load']} at the end; {result['minutes']:g} minutes,"
        f" {len(result['faults'])} faults, of which {hit} found something to hit. {len(runs)} runs, {complete} of them"
        f" *Completed*; {same} of these were compared when they were, and had the results of undisturbed runs."
        f" The server was started again {result['restarts']['server']} times, the worker {result['restarts']['worker']}"
        f" times. {registry['champions']} champion, {registry['versions']} versions, {result['experiments']} experiments;"
        f" {len(result['orphans'])} orphan processes."
    )


def fault_table(result: dict[str, Any]) -> str:
    done, hit = Counter(), Counter()
    for fault in result["faults"]:
        name = _NAMES.get((fault["kind"], fault["target"]), _STOP)
        done[name] += 1
        hit[name] += fault["hit"]
    rows = [f"| {name} | {done[name]} | {hit[name]} |" for name in [*_NAMES.values(), _STOP] if done[name]]
    return "\n".join(["| fault | done | found something to hit |", "|---|---|---|", *rows])


def run_table(result: dict[str, Any]) -> str:
    """The runs by how they ended, with the server's words."""
    ends = Counter(
        (run["state"], "" if run["state"] == "Completed" else run["message"]) for run in result["runs"]
    )
    rows = [f"| {state} | {message} | {count} |" for (state, message), count in sorted(ends.items())]
    return "\n".join(["| runs that ended as | with the message | number |", "|---|---|---|", *rows])


def wrong(result: dict[str, Any]) -> list[str]:
    """All that must not be, and what is merely worth knowing."""
    lines = (
        ["Nothing was wrong."]
        if not result["wrong"]
        else ["Wrong:", *(f"- {line}" for line in result["wrong"])]
    )
    if result["started again"]:
        lines += [
            "",
            f"Seeds that a last, undisturbed run had to finish: {', '.join(map(str, result['started again']))}.",
        ]
    if result["restored"]:
        lines += [
            "",
            f"Seeds whose last run was killed while a stage ran, so that the stage's folder was missing until `dvc checkout`:"
            f" {', '.join(map(str, result['restored']))}.",
        ]
    if overlaps := result["two stages on the GPU"]:
        lines += ["", f"Two stages were alive on the GPU in {len(overlaps)} of the looks, one a second."]
    return lines
