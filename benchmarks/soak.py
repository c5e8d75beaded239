"""Runs the pipeline on a schedule for two hours while one random fault a minute hits it, and looks what became of it.

    python -m benchmarks.soak --minutes 120 --folder /srv/soak
    python -m benchmarks.soak --report

Faults: kill -9 of a worker, a host (a worker and all below it), a flow, a stage, DVC or the server; a full disk; a stopped process;
a network cut between worker and server. Their order follows from ``--seed``. The results of undisturbed runs are made first; a
second call with the same folder does not repeat them. The full disk and the network need root on Linux; without it, they are left
out, and the report says so. Results: benchmarks/results/soak.json, soak.md and docs/soak.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule

from benchmarks import _network, _soak_checks
from benchmarks._faults import Injector, faults, small_disk
from benchmarks._machine import load, processor, today
from benchmarks._site import TINY, Site, make_project
from benchmarks._soak_checks import OWN, SEED, Seen
from benchmarks._soak_report import RESULT, write
from stages.plumbing.starting import ready

RETRIES = 5  # of requests that must not be lost; a busy server answers 503
RESTART = 5.0  # seconds until a dead worker is started again, as by systemd
SETTLE = 1500.0  # seconds that the last runs may take when no fault disturbs them any more
GPU_STAGES = {"stages.search", "stages.retrain"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120, help="how long faults happen (120)")
    parser.add_argument("--every", type=float, default=5, help="minutes between two scheduled runs (5)")
    parser.add_argument("--seeds", type=int, default=6, help="different runs, which take turns (6)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (0)")
    parser.add_argument("--folder", type=Path, default=Path("soak"), help="where everything is made (./soak)")
    parser.add_argument("--report", action="store_true", help="write the report of the last soak again")
    options = parser.parse_args()
    ready()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the exception ends all that was started
    if options.report:
        write(json.loads(RESULT.read_text(encoding="utf-8")))
        return 0
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    reference = undisturbed(folder, options.seeds)
    disk = small_disk(folder / "project")
    with network() as inside:
        site = Site(folder, _network.HERE if inside else "127.0.0.1", inside)
        make_project(site.project, TINY)
        try:
            start(site)
            soak = Soak(site, options, reference, disk)
            soak.run()
            soak.settle()
            result = soak.result()
        finally:
            site.stop()
    result["processes after the end"] = [" ".join(process.cmdline()) for process in site.processes()]
    write(result)
    return 0 if not result["wrong"] else 1


def undisturbed(folder: Path, seeds: int) -> dict[int, dict[str, str]]:
    """The results of runs that nothing disturbs: seed -> file -> hash. They are kept in the folder."""
    kept = folder / "reference.json"
    if not kept.exists():
        site = Site(folder / "reference")
        make_project(site.project, TINY)
        try:
            site.start_server()
            site.wait()
            for seed in range(seeds):
                print(f"{clock()} undisturbed run of seed {seed}", flush=True)
                site.call(
                    "-m", "pipelines.nas", *(f"-S{key}={value}" for key, value in changes(seed).items())
                )
        finally:
            site.stop()
        kept.write_text(json.dumps(_soak_checks.digests(site.project), indent=1))
    return {int(seed): files for seed, files in json.loads(kept.read_text()).items()}


@contextlib.contextmanager
def network() -> Iterator[list[str]]:
    """What starts a command behind a network that can be cut; nothing where that is not possible."""
    if not _network.possible():
        yield []
        return
    _network.make()
    try:
        yield _network.inside()
    finally:
        _network.remove()


def start(site: Site) -> None:
    site.start_server()
    site.wait()
    site.deploy()
    site.start_worker()


class Soak:
    """A site, its schedule and its faults."""

    def __init__(
        self, site: Site, options: argparse.Namespace, reference: dict[int, dict[str, str]], disk: bool
    ):
        self.site, self.options, self.reference = site, options, reference
        self.faults = faults(options.seed, int(options.minutes), bool(site.inside), disk)
        self.injector = Injector(site)
        self.worker_back = 0.0
        self.restarts = {"server": 0, "worker": 0}
        self.runs: dict[str, Seen] = {}
        self.overlaps: list[dict[str, Any]] = []
        self.again: list[
            int
        ] = []  # seeds whose runs all ended without a result, so that a person starts one more
        self.asked = 0.0
        self.began = today()

    def run(self) -> None:
        """Schedules the runs, and lets a fault happen each minute."""
        self._schedule()
        began = time.monotonic()
        for number, fault in enumerate(self.faults):
            self._until(began + 60 * (number + 1))
            latest = began + 60 * (number + 2) - 5
            while not self.injector.ready(fault) and time.monotonic() < latest:
                self.tick()
            self._until(min(time.monotonic() + fault.delay, latest))
            self.injector.strike(fault)
            say(
                f"{fault.kind} {fault.target} for {fault.seconds} s, hit: {fault.hit}, alive: {', '.join(fault.roles)}"
            )
        while self.injector.mending:
            self.tick()

    def _until(self, end: float) -> None:
        while time.monotonic() < end:
            self.tick()

    def tick(self) -> None:
        """One second: ends faults, starts what has died, and looks."""
        self.injector.mend()
        self.site.reap()
        now = time.monotonic()
        if now >= self.injector.server_back and not self.site.processes("server"):
            self.site.start_server()
            self.restarts["server"] += 1
        if self.site.processes("worker"):
            self.worker_back = now + RESTART
        elif now >= self.worker_back:
            self.site.start_worker()
            self.restarts["worker"] += 1
            self.worker_back = now + RESTART
        self._look_at_gpu()
        if now >= self.asked + 10:
            self.asked = now
            self._look_at_runs()
        time.sleep(1)

    def settle(self) -> None:
        """Waits until every run has ended, and starts those again that left no result, as a person would."""
        say("no more faults")
        self._until_all_ended()
        done = {run.seed for run in self.runs.values() if run.state == "Completed"}
        self.again = sorted(self.reference.keys() - done)
        with self.site.client(retries=RETRIES) as client:
            deployment = client.read_deployment_by_name("nas/on-demand").id
            for seed in self.again:
                client.create_flow_run_from_deployment(deployment, parameters={"params": changes(seed)})
        self._until_all_ended()

    def result(self) -> dict[str, Any]:
        """All counts, and all that is wrong."""
        time.sleep(60)  # for a process that ends late
        runs = sorted(self.runs.values(), key=lambda run: run.scheduled)
        restored = _soak_checks.restore(self.site, self.reference)
        results = _soak_checks.digests(self.site.project)
        differ = {
            seed: files
            for seed in self.reference
            if (files := _soak_checks.different(results.get(seed, {}), self.reference[seed]))
        }
        registry = _soak_checks.registry(self.site.project)
        orphans = _soak_checks.orphans(self.site)
        experiments = _soak_checks.experiments(self.site)
        wrong = _soak_checks.wrong_states(runs, self.faults)
        wrong += [
            f"seed {seed}: {', '.join(files)} differ from the undisturbed run"
            for seed, files in differ.items()
        ]
        wrong += [
            f"run {run.id[-8:]} (seed {run.seed}) completed with other results"
            for run in runs
            if run.same is False
        ]
        wrong += [f"process left: {words}" for words in orphans]
        wrong += [] if registry["champions"] == 1 else [f"{registry['champions']} champions"]
        seeds = len(self.reference)
        wrong += (
            [f"{registry['versions']} versions of {seeds} networks"] if registry["versions"] < seeds else []
        )
        wrong += [f"{experiments} experiments of {seeds - 1}"] if experiments < seeds - 1 else []
        return {
            "date": self.began, "minutes": self.options.minutes, "every": self.options.every, "seed": self.options.seed,
            "seeds": self.options.seeds, "machine": f"{processor()}, {os.cpu_count()} cores", "load": load(),
            "faults": [fault.record() for fault in self.faults], "restarts": self.restarts,
            "runs": [asdict(run) for run in runs], "started again": self.again, "restored": restored, "registry": registry,
            "experiments": experiments, "orphans": orphans, "two stages on the GPU": self.overlaps, "wrong": wrong,
        }  # fmt: skip

    def _schedule(self) -> None:
        """One schedule per run, because the parameters of a schedule do not change. Repeated runs are forced."""
        first = datetime.now(UTC) + timedelta(seconds=90)  # later than the last schedule is made
        slots = int(self.options.minutes // self.options.every)
        with self.site.client(retries=RETRIES) as client:
            deployment = client.read_deployment_by_name("nas/on-demand").id
            for slot in range(slots):
                seed, force = slot % self.options.seeds, slot >= self.options.seeds
                when = IntervalSchedule(
                    interval=timedelta(days=30),
                    anchor_date=first + timedelta(minutes=slot * self.options.every),
                )
                values = {"params": changes(seed), "force": force}
                one = DeploymentScheduleCreate(
                    schedule=when, active=True, parameters=values, slug=f"slot-{slot}"
                )
                client.create_deployment_schedules(deployment, [one])
        self.end = first + timedelta(days=1)  # later ones are of no interest

    def _look_at_gpu(self) -> None:
        """Notes when two stages compute at once on the only GPU. A stopped one does not compute."""
        stages = [process for process in self.site.processes("stage") if GPU_STAGES & set(process.cmdline())]
        if len(stages) > 1:
            self.overlaps.append({"at": time.time(), "stages": len(stages)})
            say(f"{len(stages)} stages on the GPU: {[process.pid for process in stages]}")

    def _look_at_runs(self) -> None:
        """Reads all runs that are due, and compares the results of one that is newly complete."""
        with contextlib.suppress(httpx.HTTPError), self.site.client() as client:
            now = datetime.now(UTC)
            due = [
                run
                for run in client.read_flow_runs(limit=200)
                if "params" in run.parameters and (run.expected_start_time or now) < min(now, self.end)
            ]
            for run in due:
                seen, before = Seen.of(run), self.runs.get(str(run.id))
                seen.same = before.same if before else None
                if before is None or before.state != seen.state:
                    say(f"run {seen.id[-8:]} (seed {seen.seed}) {seen.state} {seen.message}")
                    if seen.state == "Completed":
                        mine = _soak_checks.digests(self.site.project).get(seen.seed, {})
                        seen.same = not _soak_checks.different(mine, self.reference[seen.seed])
                self.runs[seen.id] = seen
            state = {"runs": [asdict(run) for run in self.runs.values()], "faults": [fault.record() for fault in self.faults],
                     "overlaps": self.overlaps, "restarts": self.restarts}  # fmt: skip
            (self.site.folder / "state.json").write_text(json.dumps(state, indent=1))

    def _until_all_ended(self) -> None:
        late = time.monotonic() + SETTLE
        self.asked = 0.0
        self.tick()
        while any(run.ended is None for run in self.runs.values()):
            if time.monotonic() > late:
                say("not all runs have ended")
                return
            self.tick()


def changes(seed: int) -> dict[str, int]:
    """The parameters of a run. The project's own run has none."""
    return {} if seed == OWN else {SEED: seed}


def say(text: str) -> None:
    print(f"{clock()} {text}", flush=True)


def clock() -> str:
    return datetime.now(UTC).strftime("%H:%M:%S")


if __name__ == "__main__":
    sys.exit(main())
