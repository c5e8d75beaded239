"""The tasks by their names in params.yaml. No other module names a task.

A task is a package whose parts have fixed names. A stage asks for the parts it needs, each by its name. So a stage
depends only on the code that it imports: a change of the model card, for example, retrains nothing. Modules:

    NAME.params          the schema of params.yaml, and the metric that settings ask for; imports nothing slow
    NAME.data            reads what the stage prepare has written
    NAME.architectures   the search spaces, genotype.json, and how cells are drawn

Packages:

    NAME.prepare         converts the user's data to arrays
    NAME.training        the search and the retraining
    NAME.testing         evaluates retrained weights on the test cases
    NAME.export          writes the retrained network as a file
    NAME.exported        evaluates that file on the test cases
    NAME.views           writes and draws the results, for the report and the model card

Parts that a task may leave out:

    NAME.comparison      the networks that a found one is compared with
    NAME.speed           how long these networks take
    NAME.latency         networks of the search space as files, whose latency the stage measure measures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from stages.contracts import (
        Architectures,
        Comparison,
        Data,
        Export,
        Exported,
        Latency,
        Preparation,
        Speed,
        Testing,
        Training,
        Views,
    )
    from stages.evaluation import Metric
    from stages.params import Params

TASKS: Mapping[str, str] = {
    "images": "stages.images",
    "circuits": "stages.circuits",
    "sequences": "stages.sequences",
}


def packages(task: str) -> Sequence[str]:
    """The packages that the task needs besides those of requirements.lock; `make TASK` installs them."""
    return import_module(f"{TASKS[task]}.params").PACKAGES


def missing(task: str) -> list[str]:
    """Those of these packages that are not installed."""
    return [name for name in packages(task) if not _installed(name)]


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def metric(params: Params) -> Metric:
    """What the networks are judged by that these settings ask for."""
    return import_module(f"{TASKS[params.task]}.params").metric(params)


def data(task: str) -> Data:
    """The part of the task that reads what prepare has written."""
    return cast("Data", import_module(f"{TASKS[task]}.data"))


def architectures(task: str) -> Architectures:
    """The part of the task that knows its spaces and genotypes."""
    return cast("Architectures", import_module(f"{TASKS[task]}.architectures"))


def preparation(task: str) -> Preparation:
    """The part of the task that reads the user's data."""
    return cast("Preparation", import_module(f"{TASKS[task]}.prepare"))


def training(task: str) -> Training:
    """The part of the task that trains."""
    return cast("Training", import_module(f"{TASKS[task]}.training"))


def testing(task: str) -> Testing:
    """The part of the task that tests weights."""
    return cast("Testing", import_module(f"{TASKS[task]}.testing"))


def export(task: str) -> Export:
    """The part of the task that exports networks."""
    return cast("Export", import_module(f"{TASKS[task]}.export"))


def exported(task: str) -> Exported:
    """The part of the task that runs what was exported."""
    return cast("Exported", import_module(f"{TASKS[task]}.exported"))


def views(task: str) -> Views:
    """The part of the task that presents results."""
    return cast("Views", import_module(f"{TASKS[task]}.views"))


def comparison(task: str) -> Comparison | None:
    """The part of the task that knows what to compare a found network with; None where there is none."""
    return cast("Comparison | None", _optional(f"{TASKS[task]}.comparison"))


def speed(task: str) -> Speed | None:
    """The part of the task that times the networks of a comparison; None where there is none."""
    return cast("Speed | None", _optional(f"{TASKS[task]}.speed"))


def latency(task: str) -> Latency | None:
    """The part of the task that makes the networks whose latency is measured; None where there is none."""
    return cast("Latency | None", _optional(f"{TASKS[task]}.latency"))


def _optional(name: str) -> object | None:
    return import_module(name) if find_spec(name) else None
