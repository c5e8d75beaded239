"""What the stages ask of a task. Each protocol is one part of the task's package (stages/tasks.py) and a few functions in it.

Parts find their inputs where the stages before have put them: artifacts/data, artifacts/genotype, ... (plumbing/files.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.search.genotype import Genotype
    from models.search.program import Found
    from models.search.spaces import SearchSpace
    from models.training.loop import Program
    from models.training.trained import Trained
    from stages.evaluation import Evaluation
    from stages.params import Params
    from stages.records import DataCard, ExportRecord
    from stages.registry.card import TaskCard


class Data(Protocol):
    """NAME.data"""

    def read_card(self) -> DataCard:
        """data.json, with what the task adds to it. Raises UserError when it is absent or damaged."""
        ...


@dataclass(frozen=True)
class Layout:
    """How the cells of a space are drawn."""

    nodes: Sequence[str]  # titles, in the order in which the nodes are computed
    inputs: int  # so many of the first nodes are the cell's inputs
    outputs: Sequence[int]  # the nodes that form the cell's output
    titles: Mapping[str, str] = field(default_factory=dict)  # group -> title, where "GROUP cell" does not do


class Architectures(Protocol):
    """NAME.architectures"""

    def space(self, name: str, *, exclude_none: bool) -> SearchSpace:
        """The search space of that name."""
        ...

    def genotype_json(self, genotype: Genotype) -> dict[str, Any]:
        """The content of genotype.json."""
        ...

    def genotype_of(self, content: Mapping[str, Any]) -> Genotype:
        """The genotype in genotype.json. Raises InvalidInput for what no network can have."""
        ...

    def layout(self, genotype: Genotype) -> Layout:
        """How a genotype's cells are drawn."""
        ...


class Preparation(Protocol):
    """NAME.prepare"""

    def prepare(self, params: Any, folder: Path) -> DataCard:
        """Writes the user's data into an empty folder as arrays, and describes them. Raises UserError."""
        ...


class Training(Protocol):
    """NAME.training"""

    def inputs(self, params: Any) -> Mapping[str, str]:
        """Name -> hash of what a search reads besides artifacts/data, such as a table of the user's."""
        ...

    def search(self, params: Any) -> Program[Found]:
        """The search that params.yaml asks for."""
        ...

    def retrain(self, params: Any, genotype: Genotype) -> Program[Trained]:
        """The training of a found network."""
        ...


class Testing(Protocol):
    """NAME.testing"""

    def evaluate_weights(self, params: Any, weights: Path) -> Evaluation:
        """Runs the network of artifacts/genotype with these weights on the test cases; ``costs`` has ``params``."""
        ...

    def class_scores(self, evaluation: Evaluation) -> Mapping[str, float | None] | None:
        """The score of each class or series; None where the task has none."""
        ...

    def write_results(self, folder: Path, evaluation: Evaluation) -> None:
        """Writes files that show the results, where the task has any, beside metrics.json."""
        ...


@dataclass(frozen=True)
class ExportResult:
    """What an export came to. ``lines`` are for people; ``evaluation`` is of the exported file."""

    record: ExportRecord
    evaluation: Evaluation
    lines: Sequence[str]


class Export(Protocol):
    """NAME.export"""

    def export(self, params: Any, folder: Path, origin: Mapping[str, str]) -> ExportResult:
        """Writes the exported file and what belongs to it into an empty folder, and proves it equal to torch.

        ``origin`` goes into the file's metadata. Raises MachineError when the file does not compute what torch computes.
        """
        ...


class Exported(Protocol):
    """NAME.exported"""

    def evaluate(self, exported: Path) -> Evaluation:
        """Runs an exported file on the test cases; ``costs`` has ``size_bytes``."""
        ...

    def answers(self, exported: Path, cases: int) -> NDArray:
        """What an exported file answers to the first test cases."""
        ...

    def one_call(self, exported: Path) -> Callable[[], object]:
        """A call of an exported file with one case, for a clock."""
        ...

    def example(self) -> Mapping[str, NDArray]:
        """Input name -> array of a few test cases; empty where the exported file is no ONNX file."""
        ...

    def measures(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Further numbers of a version, for registry.json and its tags."""
        ...

    def version_tags(self) -> Mapping[str, str]:
        """Further tags of a version."""
        ...


class Views(Protocol):
    """NAME.views"""

    def test_panel(self, params: Params, evaluation: Evaluation) -> str:
        """The report's section on the test cases, as HTML."""
        ...

    def data_words(self) -> str:
        """The data in one sentence, for the report."""
        ...

    def card(self, evaluation: Evaluation, params: Any) -> TaskCard:
        """The parts of the model card that only the task can write."""
        ...
