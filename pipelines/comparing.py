"""The steps of a comparison as processes in the folder that is compared, and what a worker of a task runner executes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed

from pipelines.command import BAD_INPUT, failed
from pipelines.dvc_internals import up_to_date
from pipelines.process import run_command, run_stage
from pipelines.workspace import RETRY_DELAYS
from stages.compare.jobs import STAGE, Plan
from stages.errors import MachineError, UserError
from stages.plumbing.files import GENOTYPE_JSON, REGISTRY
from stages.registry.asking import PROMOTE

_FOUND = ("prepare", "search", "discretize")  # the stages whose results are compared
_RETRAINED = ("retrain", "export")
_TIMED_OUT = "TimedOut"


def made(folder: Path) -> None:
    """Raises UserError unless the found cell in the folder is that of its params.yaml."""
    if not (folder / GENOTYPE_JSON).is_file():
        missing = GENOTYPE_JSON if folder == Path.cwd() else folder / GENOTYPE_JSON
        raise UserError(f"{missing} is missing; run `make repro` first")
    if not up_to_date(folder, *_FOUND):
        raise UserError(
            "the data, the search or the found cell is not up to date with params.yaml and the code; run `make repro`"
            " first"
        )


def plan_of(folder: Path, seeds: Sequence[int], random: int) -> Plan:
    """Plans the comparison. Raises UserError or MachineError."""
    _step(folder, "compare-plan", "stages.compare.plan", ",".join(map(str, seeds)), str(random))
    return Plan.read(folder)


def finish(folder: Path, search_minutes: float | None) -> None:
    """Compares the results. Raises UserError or MachineError."""
    minutes = [] if search_minutes is None else [repr(search_minutes)]
    _step(folder, "compare-finish", "stages.compare.finish", *minutes)


def shown(folder: Path) -> bool:
    """Puts the comparison on the model card and into the report, if these are about the network that was compared."""
    if not (folder / REGISTRY).is_file() or not up_to_date(folder, *_FOUND, *_RETRAINED):
        return False
    for stage in ("register", "report"):  # which DVC calls every time
        result = run_stage(stage, folder, environment={PROMOTE: "ask"}, on_line=get_run_logger().info)
        if result.status:
            raise (UserError if result.status == 2 else MachineError)(result.message)
    return True


def _step(folder: Path, name: str, module: str, *arguments: str) -> None:
    command = [sys.executable, "-u", "-m", module, *arguments]
    result = run_command(name, command, folder, on_line=get_run_logger().info)
    if result.status:
        raise (UserError if result.status == 2 else MachineError)(result.message)


def _worth_a_retry(_: Any, __: TaskRun, state: State) -> bool:
    """Whether another attempt may succeed: neither where the user must fix something, nor after a timeout."""
    return state.name not in (BAD_INPUT, _TIMED_OUT)


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,  # a training that has a result is not submitted
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=_worth_a_retry,
)
def run_training(
    name: str,
    key: str,
    project: Path,
    folder: Path,
    timeout_hours: float,
    environment: Mapping[str, str],
) -> State:
    """Trains one network with one seed. Every worker sees ``project`` at the same path."""
    if Path.cwd() != project:  # in a process of Ray or Dask; threads share the flow's current folder
        os.chdir(project)
    command = [sys.executable, "-u", "-m", "stages.compare.train", key]
    try:
        result = run_command(
            f"{STAGE}/{key}",
            command,
            folder,
            timeout=timeout_hours * 3600,
            environment=environment,
            on_line=get_run_logger().info,
        )
    except TimeoutError:
        return Failed(name=_TIMED_OUT, message=f"took longer than timeout_hours ({timeout_hours:g})")
    except OSError as error:
        return failed(error)
    if result.status == 0:
        return Completed(message="trained")
    return Failed(name=BAD_INPUT if result.status == 2 else None, message=result.message)
