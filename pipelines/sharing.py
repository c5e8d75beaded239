"""What a completed run sends to others, if params.yaml asks for it (share): artifacts and, with a git remote, its experiment.

A push that fails does not fail the run. It is tried again, after seconds in this flow and then by each later flow, and the
flow says in one line what is missing and how to send it by hand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed

from pipelines.command import BAD_INPUT, failed
from pipelines.dvc_internals import experiments_named, last_error, share_remote
from pipelines.process import run_command
from pipelines.workspace import RETRY_DELAYS
from stages.errors import MachineError, UserError
from stages.params import ShareParams
from stages.plumbing.runtime import STATE, WORKSPACES

_TIMED_OUT = "TimedOut"
_UNPUSHED = (
    STATE / "unpushed"
)  # in the project: one empty file per workspace whose results are not with the others yet


def share(folder: Path, settings: ShareParams, timeout_hours: float) -> str:
    """Pushes the results in the folder, and those that earlier flows could not push. The current folder is the project.

    Returns what was not pushed, as the end of the flow's message; empty when everything was.
    """
    if not settings.push:
        return ""
    project = Path.cwd()
    _note(project, folder)
    for each in dict.fromkeys([folder, *_unpushed(project)]):
        tried = push.with_options(retries=len(RETRY_DELAYS), retry_delay_seconds=RETRY_DELAYS)
        state = tried(each.name, each, settings.git_remote, timeout_hours, return_state=True)
        if not state.is_completed():  # the others would fail as well
            said = f"{state.message}; the next flow tries again, or `{by_hand(each, settings)}` does it now"
            get_run_logger().warning(said)
            return f"; {said}"
        (project / _UNPUSHED / each.name).unlink(missing_ok=True)
    return ""


def by_hand(folder: Path, settings: ShareParams) -> str:
    """The command with which a person pushes the results in the folder."""
    if folder == Path.cwd():
        return "dvc push"
    if settings.git_remote is not None:
        return f"dvc exp push {settings.git_remote} {folder.name}"
    return f"cd {folder} && dvc push"


def _note(project: Path, folder: Path) -> None:
    """Notes before the push that the workspace is to be pushed. The project's own folder is pushed by every flow there."""
    if folder != project:
        (project / _UNPUSHED).mkdir(parents=True, exist_ok=True)
        (project / _UNPUSHED / folder.name).touch()


def _unpushed(project: Path) -> list[Path]:
    """The workspaces that are still to be pushed. Forgets those that have been removed."""
    found = []
    for note in sorted((project / _UNPUSHED).glob("*")):
        folder = project / WORKSPACES / note.name
        if folder.is_dir():
            found.append(folder)
        else:
            get_run_logger().warning("%s was not pushed, and its workspace has been removed", note.name)
            note.unlink()
    return found


def _worth_a_retry(_: object, __: TaskRun, state: State) -> bool:
    return state.name not in (BAD_INPUT, _TIMED_OUT)


@task(
    task_run_name="push {name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=_worth_a_retry,
)
def push(name: str, folder: Path, git_remote: str | None, timeout_hours: float) -> State:
    """Pushes the artifacts in the folder to the DVC remote, and a workspace's experiment to the git remote."""
    try:
        if not share_remote(Path.cwd(), folder):
            raise UserError(
                f"the artifacts of {name} were not pushed: DVC has no remote; `dvc remote add -d NAME ADDRESS` adds one"
            )
        artifacts = [sys.executable, "-m", "dvc", "--wait-for-lock", "push"]
        _run(f"the artifacts of {name} were not pushed", artifacts, folder, timeout_hours)
        if git_remote is not None and folder != Path.cwd():
            refs = [f"+{ref}:{ref}" for ref in experiments_named(Path.cwd(), name)]
            command = ["git", "push", "--quiet", git_remote, *refs]
            _run(f"the experiment {name} was not pushed to {git_remote}", command, Path.cwd(), timeout_hours)
    except TimeoutError:
        return Failed(
            name=_TIMED_OUT, message=f"{name} was not pushed within timeout_hours ({timeout_hours:g})"
        )
    except (UserError, MachineError, OSError) as error:
        return failed(error)
    return Completed(message="pushed")


def _run(trouble: str, command: Sequence[str], folder: Path, timeout_hours: float) -> None:
    """Runs a command. Raises MachineError, whose message begins with the trouble and ends with the reason."""
    lines: list[str] = []
    nobody_to_ask = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
    }
    result = run_command(
        "push", command, folder, timeout=timeout_hours * 3600, environment=nobody_to_ask, on_line=lines.append
    )
    if result.status:
        raise MachineError(f"{trouble}: {last_error(lines) or result.message}")
