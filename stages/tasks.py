"""The tasks, by their name in params.yaml; the only place where a task is named.

A task is a package with parts of fixed names, each of which a stage asks for by its name. So the code that a stage depends on is
what it imports, and a change of the model card retrains nothing. Modules:

    NAME.params          the schema of params.yaml, and the metric; imports nothing heavy
    NAME.data            reads what prepare has written
    NAME.architectures   the spaces, genotype.json, and how cells are drawn

Packages:

    NAME.prepare         the user's data as arrays
    NAME.training        what is searched and retrained
    NAME.testing         how retrained weights do on the test cases
    NAME.export          the retrained network as a file
    NAME.exported        what that file answers to the test cases
    NAME.views           words and drawings about results
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from stages.contracts import Architectures, Data, Export, Exported, Preparation, Testing, Training, Views
    from stages.evaluation import Metric

TASKS: Mapping[str, str] = {
    "images": "stages.images",
}


def metric(task: str) -> Metric:
    """What networks of the task are judged by."""
    return import_module(f"{TASKS[task]}.params").METRIC


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
    """The part of the task that draws and tells."""
    return cast("Views", import_module(f"{TASKS[task]}.views"))
