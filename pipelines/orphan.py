"""A run whose worker was killed goes on: what it prints has no reader any more, and its first line would end it."""

from __future__ import annotations

import os
import select
import threading

_STANDARD = (1, 2)  # output and errors


def outlive_worker() -> None:
    """From now on, throws away what this process prints once nobody can read it. Does so for a worker's run only."""
    if os.environ.get("PREFECT__FLOW_RUN_ID"):
        threading.Thread(target=_wait_for_end_of_reader, daemon=True, name="orphan").start()


def _wait_for_end_of_reader() -> None:
    poll = select.poll()
    for number in _STANDARD:
        poll.register(number, 0)  # errors are always told: the reader of a pipe has ended
    poll.poll()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in _STANDARD:
        os.dup2(nowhere, number)
