"""Tells the Prefect server what it must know before it can schedule anything. Run it again after every change.

    python -m pipelines.deploy --gpus 2

Creates or updates the work pool, one queue and one concurrency limit of 1 per GPU of this host (both named
HOST-gpu-NUMBER), and the deployments of prefect.yaml.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import httpx
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from ruamel.yaml import YAML

POOL = "msdarts"
# What earlier versions of this project made. They crashed live runs after an outage of the server (pipelines/watch.py).
RETIRED = ("msdarts: silent runs have crashed", "msdarts: runs that do not start have crashed")


def gpu_names(gpus: int, host: str) -> list[str]:
    """The names of this host's GPUs, which their queues and limits share."""
    return [f"{host}-gpu-{number}" for number in range(gpus)]


def prepare(client: SyncPrefectClient, gpus: Sequence[str]) -> None:
    """Creates or updates pool, queues and limits, and removes the automations of earlier versions."""
    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    for name in gpus:
        client.upsert_global_concurrency_limit_by_name(name, 1)
        try:
            queue = client.read_work_queue_by_name(name, POOL)
            client.update_work_queue(queue.id, concurrency_limit=1)
        except ObjectNotFound:
            client.create_work_queue(name, concurrency_limit=1, work_pool_name=POOL)
    for name in RETIRED:
        with contextlib.suppress(ValueError):  # none has that name
            cast(Automation, Automation.read(name=name)).delete()


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
            prepare(client, gpus)
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
