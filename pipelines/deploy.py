"""Tells the Prefect server what it must know before it can schedule anything. Run it again after every change.

    python -m pipelines.deploy --gpus 2

Creates or updates the work pool, one queue and one concurrency limit of 1 per GPU of this host (both named
HOST-gpu-NUMBER), the automations that notice runs whose worker has died, and the deployments of prefect.yaml.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import cast

import httpx
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from ruamel.yaml import YAML

POOL = "msdarts"
# A run sends a heartbeat every 30 s (prefect.toml); a single one may be late because the server is busy.
SILENCE = timedelta(seconds=75)
# Between taking a run and its first heartbeat, a worker imports everything, on a cold machine for minutes.
STARTING = timedelta(minutes=5)

_BEAT, _ANY = "prefect.flow-run.heartbeat", "prefect.flow-run.*"


def zombie(name: str, after: set[str], within: timedelta, message: str) -> Automation:
    """An automation that marks a flow run Crashed when it is silent for the time ``within`` after an event."""
    return Automation(
        name=name,
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after=after,
            expect={_ANY},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)],
    )


def automations(silence: timedelta = SILENCE, starting: timedelta = STARTING) -> list[Automation]:
    """The automations that free what a dead run holds: its place in the queue and in the deployment's limit."""
    resume = "its worker was stopped or has died; the next run goes on with the stage that was running"
    return [
        zombie("msdarts: silent runs have crashed", {_BEAT, "prefect.flow-run.Cancelling"}, silence, resume),
        zombie(
            "msdarts: runs that do not start have crashed", {"prefect.flow-run.Pending"}, starting, resume
        ),
    ]


def gpu_names(gpus: int, host: str) -> list[str]:
    """The names of this host's GPUs, which their queues and limits share."""
    return [f"{host}-gpu-{number}" for number in range(gpus)]


def prepare(client: SyncPrefectClient, gpus: Sequence[str], wanted: Sequence[Automation]) -> None:
    """Creates or updates pool, queues, limits and automations."""
    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    for name in gpus:
        client.upsert_global_concurrency_limit_by_name(name, 1)
        try:
            queue = client.read_work_queue_by_name(name, POOL)
            client.update_work_queue(queue.id, concurrency_limit=1)
        except ObjectNotFound:
            client.create_work_queue(name, concurrency_limit=1, work_pool_name=POOL)
    for automation in wanted:
        try:
            automation.id = cast(Automation, Automation.read(name=automation.name)).id
            automation.update()
        except ValueError:  # none has that name
            automation.create()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.deploy", description=__doc__)
    parser.add_argument("--gpus", type=int, default=0, help="how many GPUs this host lends to flows (0)")
    parser.add_argument("--host", default=platform.node(), help="name of this host in queues and limits")
    options = parser.parse_args(arguments)
    if options.gpus < 0:
        print(f"error: deploy: --gpus is {options.gpus}; it should be 0 or more", file=sys.stderr)
        return 2
    gpus = gpu_names(options.gpus, options.host)
    try:
        with get_client(sync_client=True) as client:
            prepare(client, gpus, automations())
    except httpx.ConnectError:
        print(
            f"error: deploy: no Prefect server answers at {PREFECT_API_URL.value()}; `make server` starts one",
            file=sys.stderr,
        )
        return 1
    for name in gpus:
        print(f"queue and limit: {name}")
    return send_deployments()


def send_deployments() -> int:
    """Sends prefect.yaml to the server. Returns the exit status.

    Prefect's own words are shown only when it fails, because they recommend commands that know nothing of GPUs.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    here = {"MSDARTS_PROJECT": str(Path.cwd())}  # PWD may name another folder than the project
    done = subprocess.run(
        command,
        env={**os.environ, **here},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        return done.returncode
    for deployment in YAML(typ="safe").load(Path("prefect.yaml"))["deployments"]:
        flow = deployment["entrypoint"].partition(":")[2]
        print(f"deployment: {flow}/{deployment['name']}")
    print("`make worker` executes what is due; docs/operations.md says how to start and cancel a run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
