"""Flow ``nas``: the stages of dvc.yaml one after another, each as a Prefect task that runs DVC for it.

    python -m pipelines.nas -S search.seed=3 --target retrain

A flow run does what ``dvc repro`` does: it skips what is up to date, and resumes an interrupted training after its last complete epoch.
The exit status is that of a stage: 0 done, 1 a failure of the machine, 2 the user's mistake.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from pipelines import alerts, gpu
from pipelines.cancelling import ToBeCancelled, asked
from pipelines.command import BAD_INPUT, change, failed, named, on_profile, run_flow
from pipelines.dvc_internals import mend, up_to_date
from pipelines.graph import Stage, stages
from pipelines.orphan import outlive_worker
from pipelines.process import run_stage
from pipelines.sharing import share
from pipelines.summary import publish
from pipelines.workspace import RETRY_DELAYS, patiently, save_experiment, workspace
from stages.errors import MachineError, UserError
from stages.plumbing import watched
from stages.plumbing.run_row import FLOW_RUN
from stages.plumbing.settings import PARAMS_FILE, load
from stages.plumbing.status import EXECUTION, Progress

TIMED_OUT = "TimedOut"  # Prefect's own name for such a state
CACHED = "cached: nothing that it depends on has changed"


@flow(name="nas", flow_run_name=named(), on_failure=[alerts.on_failure], persist_result=False)
def nas(
    params: dict[str, Any] | None = None,
    target: str | None = None,
    force: bool = False,
    timeout_hours: float = 48.0,
    profile: str | None = None,
) -> State:
    """Runs the stages, from data to a registered network.

    Args:
        params: Other values for keys of params.yaml, such as {"search.seed": 3}. Such a run has a workspace of its own and
            becomes a DVC experiment.
        target: The last stage to run, after those that it depends on; empty: every stage.
        force: Whether to run stages that are up to date, too.
        timeout_hours: The longest that one stage may take; time spent waiting for a GPU does not count.
        profile: Another task, whose settings (profiles/TASK.yaml) the run starts from, in a workspace of its own.
    """
    outlive_worker()
    try:
        changes = on_profile(profile, params or {})
        with workspace(changes, get_run_logger().info) as folder:
            state = execute_all(stages(folder, target), folder, timeout_hours, force=force)
            if not state.is_completed():
                return state
            if changes:
                patiently(lambda: save_experiment(folder), get_run_logger().info)
            publish(folder, changes)
            settings = load(folder / PARAMS_FILE)
            alerts.on_decision(folder, flow_run.name or "nas", settings.alerts, get_run_logger().warning)
            not_pushed = share(folder, settings.share, timeout_hours)
    except (UserError, MachineError, OSError) as error:
        return failed(error)
    return Completed(message=f"{target or 'every stage'} is done{not_pushed}")


def execute_all(
    chain: Sequence[Stage],
    folder: Path,
    timeout_hours: float,
    *,
    force: bool = False,
    environment: Mapping[str, str] | None = None,
) -> State:
    """Runs one stage after another. Returns the state of the first that fails, or Completed."""
    for stage in chain:
        state = execute(stage, folder, force, timeout_hours, environment, return_state=True)
        if (
            not state.is_completed()
        ):  # a new state, because Prefect counts the tasks' own states and shows no message
            kind = Cancelled if state.is_cancelled() else Failed
            return kind(name=state.name, message=state.message)
    return Completed()


def _worth_a_retry(_: Any, __: TaskRun, state: State) -> bool:
    """Whether another attempt may succeed: neither where the user must fix something, nor after a timeout."""
    return state.name not in (BAD_INPUT, TIMED_OUT)


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,  # DVC knows better what is up to date
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=_worth_a_retry,
)
def execute(
    stage: Stage,
    folder: Path,
    force: bool,
    timeout_hours: float,
    environment: Mapping[str, str] | None = None,
) -> State:
    """Runs one stage, with additional variables in its environment.

    The state says whether the stage ran or was up to date, or in one line what went wrong.
    """
    try:
        mend(folder)
        if not force and up_to_date(folder, stage.name):
            return Completed(name="Cached", message=CACHED)
        with _gpu(stage) as (variables, holds_gpu), asked() as is_wanted:
            identity = {EXECUTION: str(flow_run.id), FLOW_RUN: str(flow_run.id)}
            result = run_stage(
                stage.name,
                folder,
                force=force,
                timeout=timeout_hours * 3600,
                environment={**identity, **(environment or {}), **variables},
                on_line=get_run_logger().info,
                on_progress=_progress_artifact(stage.name),
                checks=(holds_gpu, is_wanted),
            )
    except ToBeCancelled:
        return Cancelled(message=f"{stage.name}: ended, because the run is cancelled")
    except TimeoutError as error:
        limit = f"timeout_hours ({timeout_hours:g})"
        message = f"{stage.name}: took longer than {limit}; {error}"
        return Failed(name=TIMED_OUT, message=message)
    except (UserError, MachineError, OSError) as error:
        return failed(error, f"{stage.name}: ")
    match result.status:
        case 0 if result.ran:
            return Completed(message="ran")
        case 0:
            return Completed(name="Cached", message=CACHED)
        case 2:
            return Failed(name=BAD_INPUT, message=result.message)
        case _:
            return Failed(message=result.message)


@contextlib.contextmanager
def _gpu(stage: Stage) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Holds the worker's GPU for a stage that computes on it, and hides it from others; does nothing without a limit.

    Yields the stage's variables, and what raises MachineError when another run has the GPU.
    """
    limit = os.environ.get(gpu.LIMIT)
    if not limit:
        yield {}, lambda: None
    elif not stage.gpu:
        yield {"CUDA_VISIBLE_DEVICES": ""}, lambda: None
    else:
        with gpu.held(limit) as holds_gpu:
            yield {}, holds_gpu


def _progress_artifact(stage: str) -> Callable[[Progress], None]:
    """Shows the progress of a stage that trains as an artifact of this task run."""
    artifact: UUID | None = None

    def show(progress: Progress) -> None:
        nonlocal artifact
        if progress.fraction is None:
            return
        percent = 100 * progress.fraction
        description = progress.line or f"{stage} epoch {progress.epoch}/{progress.epochs}"
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # the stage's lines do not wait
                if artifact is None:
                    key = f"{stage.replace('_', '-')}-progress"
                    artifact = cast(UUID, create_progress_artifact(percent, key, description))
                else:
                    update_progress_artifact(artifact, percent, description)
        except httpx.HTTPError as error:  # a training goes on while the server is away
            get_run_logger().warning("progress is not shown: %s", error)

    return show


def main(arguments: Sequence[str] | None = None) -> int:
    """The flow as a command, on the server that runs on this machine, or else on one for this run alone."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.nas", description="The pipeline as a Prefect flow."
    )
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE",
                        help="another value for a key of params.yaml; may be repeated")  # fmt: skip
    parser.add_argument("--profile", metavar="TASK", help="the settings of another task, profiles/TASK.yaml")
    parser.add_argument("--target", help="the last stage to run, after those that it depends on")
    parser.add_argument("--force", action="store_true", help="also run stages that are up to date")
    options = parser.parse_args(arguments)
    try:
        changes = on_profile(options.profile, dict(change(text) for text in options.set_param))
        watched.check(load(PARAMS_FILE, changes).data)  # a mistake does not wait for a server
        stages(Path.cwd(), options.target)
    except UserError as error:
        print(f"error: nas: {error}", file=sys.stderr)
        return 2
    return run_flow(lambda: nas(changes, options.target, options.force, return_state=True))


if __name__ == "__main__":
    sys.exit(main())
