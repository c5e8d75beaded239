"""Tells a person what needs one: a run that only the user can mend, one that failed in the end, what the gate decided.

params.yaml says who is told (alerts): a Prefect block for notifications, or an address in an environment variable. Telling
takes a bounded time and fails no run; what could not be told is a warning in the run's log, without the address.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run as this_run
from pydantic import ValidationError

from pipelines.command import BAD_INPUT, on_profile
from stages.errors import UserError
from stages.params import AlertsParams
from stages.plumbing.files import REGISTRY
from stages.plumbing.settings import PARAMS_FILE, load, read
from stages.registry.record import RegistryRecord

PATIENCE = 10.0  # seconds that telling a receiver may take
Kind = Literal["bad-input", "failed", "promoted", "waits", "refused"]
Warn = Callable[[str], None]


def on_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of flows: tells that a run has failed. A run within another is left to the other."""
    if flow_run.parent_task_run_id is None:
        warn = flow_run_logger(flow_run, flow).warning
        kind: Kind = "bad-input" if state.name == BAD_INPUT else "failed"
        tell(
            _settings(flow_run.parameters, warn),
            kind,
            flow_run.name,
            str(state.message),
            str(flow_run.id),
            warn,
        )


def on_decision(folder: Path, name: str, settings: AlertsParams, warn: Warn) -> None:
    """Tells what the gate has decided in this flow run; a decision of an earlier one is no news."""
    if not (folder / REGISTRY).exists():
        return
    record = RegistryRecord.read(folder / REGISTRY)
    if record.origin.prefect_flow_run == str(this_run.id):
        said = f"{record.model} version {record.version}: {record.reason}"
        kind: Kind = "promoted" if record.promoted else "waits" if record.waits else "refused"
        tell(settings, kind, name, said, str(this_run.id), warn)


def tell(settings: AlertsParams, kind: Kind, name: str, message: str, flow_run_id: str, warn: Warn) -> None:
    """Tells all receivers that a run (``name``) is in a state of this kind."""
    if kind not in settings.on:
        return
    subject = f"{name}: {kind}"
    payload = {
        "text": f"{subject}: {message}",  # what chats show
        "run": name,
        "state": kind,
        "message": message,
        "flow_run": flow_run_id,
    }
    if settings.webhook is not None:
        variable = settings.webhook
        _bounded(lambda: _post(variable, payload), f"alerts.webhook ({variable})", warn)
    if settings.block is not None:
        block = settings.block
        _bounded(lambda: _notify(block, subject, payload), f"alerts.block ({block})", warn)


def _post(variable: str, payload: dict[str, str]) -> None:
    if not (address := os.environ.get(variable)):
        raise UserError("the variable is not set here; put the address of the receiver into it")
    response = httpx.post(address, json=payload, timeout=PATIENCE)
    if response.is_error:
        raise UserError(f"the receiver answered {response.status_code}")


def _notify(name: str, subject: str, payload: dict[str, str]) -> None:
    block = Block.load(name)
    if isinstance(block, NotificationBlock):
        sent: Any = block.notify(payload["message"], subject)
        if isinstance(sent, Coroutine):  # of a block that knows no other way
            asyncio.run(sent)
    elif isinstance(block, Webhook):
        response = asyncio.run(block.call(payload))
        if response.is_error:
            raise UserError(f"the receiver answered {response.status_code}")
    else:
        raise UserError("it is no block for notifications and no webhook")


def _bounded(send: Callable[[], None], receiver: str, warn: Warn) -> None:
    """Calls a function in a thread that is given up after PATIENCE, because a receiver may answer byte by byte."""
    trouble: list[str] = [f"no answer within {PATIENCE:g} s"]

    def attempt() -> None:
        try:
            send()
            trouble.clear()
        except Exception as error:  # of any library of notifications
            trouble[0] = " ".join(str(error).split())[:200] or type(error).__name__

    thread = threading.Thread(target=contextvars.copy_context().run, args=(attempt,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if trouble:
        warn(f"{receiver} was not told: {trouble[0]}")


def _settings(parameters: dict[str, Any], warn: Warn) -> AlertsParams:
    """The settings, also where the run failed because others are wrong."""
    try:
        changes = on_profile(parameters.get("profile"), parameters.get("params") or {})
        return load(PARAMS_FILE, changes).alerts
    except UserError:
        pass
    try:
        section = read(PARAMS_FILE).get("alerts")
        return (
            AlertsParams.model_validate(section) if section else AlertsParams(block=None, webhook=None, on=[])
        )
    except (UserError, ValidationError):
        warn(f"nobody was told, because {PARAMS_FILE} cannot be read")
        return AlertsParams(block=None, webhook=None, on=[])
