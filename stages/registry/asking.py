"""Whether a run may change the champion by itself, or asks a person first.

``registry.promote: auto``: the project's own runs may: `dvc repro`, `make flow`, a schedule. An experiment may not, because
whoever tries ten settings and lets the best of them become champion has chosen by the test cases. ``ask``: no run may.

An experiment is what DVC runs as one (`dvc exp run`, also queued or temporary), and a run with parameters of its own, which
works in a workspace. The winner of a sweep is no experiment in this sense: its rivals were left behind on the validation
cases, and it alone is tested. The sweep says so with the variable ``MSDARTS_PROMOTE``.
"""

from __future__ import annotations

import os
from pathlib import Path

from stages.params import RegistryParams
from stages.plumbing.tracking import project_folder

# Variable of a run whose flow knows better. auto: it was chosen without the test cases; ask: it only puts something on the card.
PROMOTE = "MSDARTS_PROMOTE"


def reason_to_ask(settings: RegistryParams) -> str | None:
    """Why this run does not change the champion by itself; None where it may."""
    if settings.promote == "ask":
        return "registry.promote is ask"
    told = os.environ.get(PROMOTE)
    if told == "ask":
        return "a comparison does not change the champion"
    if is_experiment() and told != "auto":
        return "an experiment does not change the champion by itself"
    return None


def is_experiment() -> bool:
    """Whether DVC runs this process as an experiment, or it works in a workspace of its own."""
    return "DVC_EXP_NAME" in os.environ or project_folder() != Path.cwd()


def how(version: int) -> str:
    """What a person types."""
    return f"`python -m stages.champion {version}` makes it champion"
