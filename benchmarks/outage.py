"""Kills the Prefect server during a run, for minutes, and looks whether the run or its GPU is taken from it.

    python -m benchmarks.outage --seconds 60 120 300
    python -m benchmarks.outage --database postgresql+asyncpg://USER:PASSWORD@HOST/NAME

Two workers share one GPU. The first run holds it and searches; the second run waits for it. Then the server is killed with -9, and
starts again after the given time. The first run should end as Completed without ever having been Crashed, and the second run should
compute only after it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun

from benchmarks._site import TINY, Site, make_project
from stages.plumbing.starting import ready

LIMIT = 1500  # seconds that two runs may take beside the outage


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[60, 120, 300], help="how long the server is away"
    )
    parser.add_argument("--database", default="", help="of the server; an empty one (default: SQLite)")
    parser.add_argument("--folder", type=Path, help="where everything is made (default: a temporary folder)")
    options = parser.parse_args()
    ready()
    well = True
    with tempfile.TemporaryDirectory(prefix="msdarts-outage-", ignore_cleanup_errors=True) as temporary:
        site = Site((options.folder or Path(temporary)).resolve(), database=options.database)
        make_project(site.project, TINY)
        try:
            site.start_server()
            site.wait()
            site.deploy()
            site.start_worker()
            site.start_worker()
            for number, seconds in enumerate(options.seconds):
                found = outage(site, seconds, seed=10 * number + 1)
                print(json.dumps(found), flush=True)
                well &= found["well"]
        finally:
            site.stop()
    return 0 if well else 1


def outage(site: Site, seconds: float, seed: int) -> dict[str, Any]:
    """Two runs, and the server away for ``seconds`` while the first one searches. Returns what was seen."""
    epochs = 8 + int(seconds / 2)  # an epoch takes a second or more
    with site.client(retries=5) as client:
        deployment = client.read_deployment_by_name("nas/on-demand").id
        first, second = (
            client.create_flow_run_from_deployment(
                deployment, parameters={"params": {"search.seed": seed + number, "search.epochs": length}}
            ).id
            for number, length in enumerate((epochs, 4))
        )
    watching = Watching(site, [first, second])
    watching.until(lambda: watching.said(first, "search epoch 2/"))
    for process in site.processes("server"):
        process.kill()
    site.reap()
    away = time.monotonic() + seconds
    watching.until(lambda: time.monotonic() > away)
    site.start_server()
    site.wait()
    watching.until(lambda: all(watching.final(run) for run in (first, second)))
    states = {"first": watching.states[first], "second": watching.states[second]}
    well = states == {"first": ["Completed"], "second": ["Completed"]} and watching.most == 1
    return {
        "seconds": seconds,
        "final states": states,
        "stages on the GPU at once": watching.most,
        "well": well,
    }


class Watching:
    """Looks every half second at the states of runs, and at how many stages compute on the one GPU."""

    def __init__(self, site: Site, runs: list[UUID]):
        self.site, self.states = site, {run: [] for run in runs}
        self.most = 0

    def until(self, condition: Any) -> None:
        late = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > late:
                raise TimeoutError(f"nothing happened for {LIMIT} s: {self.states}")
            self.look()
            time.sleep(0.5)

    def look(self) -> None:
        self.most = max(self.most, len(on_gpu(self.site)))
        try:
            for run, seen in self.states.items():
                state = self.run(run).state
                if state is not None and state.is_final() and state.name not in seen[-1:]:
                    seen.append(state.name)
        except httpx.HTTPError:
            return

    def run(self, run: UUID) -> FlowRun:
        with self.site.client() as client:
            return client.read_flow_run(run)

    def final(self, run: UUID) -> bool:
        return bool(self.states[run]) and self.states[run][-1] != "Crashed"

    def said(self, run: UUID, text: str) -> bool:
        with self.site.client() as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
        return any(text in log.message for log in logs)


def on_gpu(site: Site) -> list[int]:
    """The stages that compute on the GPU at this moment."""
    holders = {"stages.search", "stages.retrain"}
    return [process.pid for process in site.processes("stage") if holders & set(process.cmdline())]


if __name__ == "__main__":
    sys.exit(main())
