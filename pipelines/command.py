"""What all flows share as commands: options, the server that they report to, and the exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.states import Failed
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.process import COLOUR
from stages.errors import MachineError, UserError, whose
from stages.plumbing.naming import experiment_name, run_name
from stages.plumbing.settings import PARAMS_FILE, load
from stages.plumbing.starting import ready

BAD_INPUT = "BadInput"  # name of the state when only the user can fix what is wrong


def run_flow(flow: Callable[[], State]) -> int:
    """Calls a flow, on a running server or one of its own. Returns the exit status; a failure is one line on stderr."""
    ready()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # which it is under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # the exception ends the stages
    try:
        with _server():
            state = flow()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if state.is_completed():
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 2 if state.name == BAD_INPUT else 1


def failed(error: UserError | MachineError | OSError, where: str = "") -> State:
    """The state of a flow or a task that an error ends. Only the user's mistakes are BAD_INPUT, which nobody tries again."""
    known = whose(error) if isinstance(error, OSError) else error
    return Failed(name=BAD_INPUT if isinstance(known, UserError) else None, message=f"{where}{known}")


def change(text: str) -> tuple[str, Any]:
    """``search.seed=3`` as a key and a value, which is read as YAML, as DVC does. Raises UserError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set-param {text} has no value; write it as KEY=VALUE")
    return key.strip(), yaml_value(value, f"--set-param {text}")


def on_profile(profile: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of params.yaml, or of another task's profile. Raises UserError where they name two tasks."""
    if profile is None:
        return dict(changes)
    if changes.get("task", profile) != profile:
        raise UserError(f"task is {changes['task']}, but profile is {profile}; leave one of them out")
    return {"task": profile, **changes}


def named(kind: str = "", *shown: str) -> Callable[[], str]:
    """Names a flow run after its parameters, as MLflow and DVC name the run.

    A flow above several runs has a ``kind``, and shows further parameters (name -> value, or a mapping of these).
    """

    def name() -> str:
        given = flow_run.parameters
        try:
            changes = on_profile(given.get("profile"), given.get("params") or {})
            if not kind:
                return experiment_name(changes)
            settings = load(PARAMS_FILE, changes)
            for key in shown:
                changes |= given[key] if isinstance(given[key], dict) else {key: given[key]}
            return run_name(settings, changes, kind)
        except (UserError, OSError):  # the flow itself says what is wrong
            return kind or "nas"

    return name


def yaml_value(value: str, option: str) -> Any:
    """A value of an option, read as YAML. Raises UserError."""
    try:
        return YAML(typ="safe").load(value)
    except YAMLError:
        raise UserError(f"{option}: {value!r} is not valid YAML; put the value in quotes") from None


def message_of(state: State) -> str:
    """The message of a state in one line; of an exception on a worker, the first and the last line."""
    lines = [line.strip() for line in COLOUR.sub("", state.message or "").splitlines() if line.strip()]
    if not lines:
        return "its worker was lost, or could not import this project; the logs of the cluster say which"
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"


@contextlib.contextmanager
def _server() -> Iterator[None]:
    """The server of the environment or of prefect.toml; where prefect.toml means this machine and no server runs on it,
    one for this block alone."""
    address = PREFECT_API_URL.value()
    if os.environ.get("PREFECT_API_URL") or (address and (not _is_local(address) or _answers(address))):
        yield
    else:
        from prefect.server.api.server import (
            SubprocessASGIServer,
        )  # takes seconds, and is imported only where it is needed

        own = SubprocessASGIServer()  # ends with this process, after the last logs have been sent
        # Ctrl-C and a closed terminal reach every process in it. The server inherits that they are blocked, because it must
        # hear of the flow's end: the flow would otherwise wait minutes for an answer.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            own.start(timeout=PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with temporary_settings({PREFECT_API_URL: own.api_url}):
            yield


def _is_local(address: str) -> bool:
    return urllib.parse.urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


def _answers(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=1):
            return True
    except OSError:
        return False
