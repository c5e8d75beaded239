"""What registering asks of a task, gathered from the parts of the task's package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages import tasks
from stages.evaluation import Evaluation, Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.params import Params
    from stages.registry.card import TaskCard


class Task(Protocol):
    """What registering asks of a task."""

    @property
    def metric(self) -> Metric:
        """The metric that the gate compares, which is one of the forms of the task's metric."""
        ...

    def evaluate(self, exported: Path) -> Evaluation:
        """Runs an exported file on the test cases."""
        ...

    def one_call(self, exported: Path) -> Callable[[], object] | None:
        """A call with one test case, whose time is the latency; None where there is no such time."""
        ...

    def example(self) -> Mapping[str, NDArray[Any]]:
        """Input name -> array of a few test cases; empty where the export is not ONNX."""
        ...

    def measures(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Further numbers of a version, for registry.json and its tags."""
        ...

    def version_tags(self) -> Mapping[str, str]:
        """Further tags of a version."""
        ...

    def card(self, evaluation: Evaluation, params: Params) -> TaskCard:
        """The parts of the model card that only the task can write."""
        ...


class _Gathered:
    """A task by its name in params.yaml; its parts are imported when they are asked for."""

    def __init__(self, params: Params):
        self.name, self.params = params.task, params

    @property
    def metric(self) -> Metric:
        return self.params.registry.judged_by(tasks.metric(self.params))

    def evaluate(self, exported: Path) -> Evaluation:
        return tasks.exported(self.name).evaluate(exported)

    def one_call(self, exported: Path) -> Callable[[], object] | None:
        return tasks.exported(self.name).one_call(exported)

    def example(self) -> Mapping[str, NDArray[Any]]:
        return tasks.exported(self.name).example()

    def measures(self, evaluation: Evaluation) -> Mapping[str, float]:
        return tasks.exported(self.name).measures(evaluation)

    def version_tags(self) -> Mapping[str, str]:
        return tasks.exported(self.name).version_tags()

    def card(self, evaluation: Evaluation, params: Params) -> TaskCard:
        return tasks.views(self.name).card(evaluation, params)


def task_of(params: Params) -> Task:
    """The task that params.yaml names."""
    return _Gathered(params)
