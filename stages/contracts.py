"""What the stages need from a task: each protocol lists the functions of one part of its package (stages/tasks.py).

Each part reads its inputs from where the earlier stages wrote them: artifacts/data, artifacts/genotype, ...
(plumbing/files.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

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
        """data.json, including the task's own fields. Raises UserError when the file is missing or damaged."""
        ...


class Drawing(Protocol):
    """A task's own drawing of an architecture, in place of nodes and arrows."""

    def __call__(self, file: Path | BinaryIO, *, narrow: bool) -> None:
        """Draws into a file; ``narrow``: no broader than a phone. Colours are those of stages/pictures.py."""
        ...


@dataclass(frozen=True)
class Layout:
    """How the cells of a space are drawn."""

    nodes: Sequence[str]  # titles, in the order in which the nodes are computed
    inputs: int  # how many of the first nodes are the cell's inputs
    outputs: Sequence[int]  # the nodes that form the cell's output
    titles: Mapping[str, str] = field(default_factory=dict)  # group -> title, unless it is "GROUP cell"
    rows: Sequence[str] = ()  # titles of the mix's rows, where an edge is more than a way from node to node
    # Name -> drawing, where arrows are not it; a drawing may show several groups, and then has a name of its own.
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    note: str = ""  # what the titles of the nodes mean, a sentence, where a reader cannot tell

    def pictures(self, genotype: Genotype) -> Sequence[str]:
        """The names of the drawings of a genotype: those of its groups, unless it has drawings of its own."""
        return list(self.drawings or genotype.groups)

    def title(self, group: str) -> str:
        """What a group is called."""
        return self.titles.get(group, f"{group} cell")

    def edge(self, group: str, number: int, src: int, dst: int) -> str:
        """What an edge of a group is called; ``number`` counts the edges of the space from 0."""
        if self.rows:
            return self.rows[number]
        if src == dst:  # a choice of the node itself
            return self.nodes[dst]
        source, target = (self.nodes[node].removeprefix("cell ").removeprefix("node ") for node in (src, dst))
        return f"{source} \u2192 {target}"


class Architectures(Protocol):
    """NAME.architectures"""

    def space(self, name: str, *, exclude_none: bool) -> SearchSpace:
        """The search space of that name."""
        ...

    def genotype_json(self, genotype: Genotype) -> dict[str, Any]:
        """The content of genotype.json."""
        ...

    def genotype_of(self, content: Mapping[str, Any]) -> Genotype:
        """The genotype in genotype.json. Raises InvalidInput when no network can have it."""
        ...

    def layout(self, genotype: Genotype) -> Layout:
        """How a genotype's cells are drawn."""
        ...


class Preparation(Protocol):
    """NAME.prepare"""

    def prepare(self, params: Any, folder: Path) -> DataCard:
        """Writes the user's data as arrays into an empty folder and describes them. Raises UserError."""
        ...


class Training(Protocol):
    """NAME.training

    The histories have the metric as ``train_NAME`` and ``valid_NAME``, and where the metric has a balanced form, also
    ``valid_NAME`` of that form.
    """

    def inputs(self, params: Any) -> Mapping[str, str]:
        """Name -> hash of each input of a search besides artifacts/data, such as a table that the user gave."""
        ...

    def search(self, params: Any) -> Program[Found]:
        """The search that params.yaml asks for."""
        ...

    def retrain(self, params: Any, genotype: Genotype) -> Program[Trained]:
        """The training of a found network."""
        ...


@dataclass(frozen=True)
class Arm:
    """A network that a comparison trains, once per seed."""

    name: str  # such as "random 3"
    kind: Literal["found", "random", "baseline"]
    network: Mapping[str, Any]  # JSON from which, with the section retrain, the task builds the network
    params: int | None  # None where only the trained network tells
    macs: int | None = None  # per case


class Comparison(Protocol):
    """NAME.comparison, which a task may leave out"""

    def found(self, params: Any, genotype: Genotype) -> Arm:
        """The network of the found cell, at the size that the section retrain gives it."""
        ...

    def random(self, params: Any, genotype: Genotype, count: int) -> Sequence[Arm]:
        """Networks of random cells of the same space, with as many parameters as that of the found ``genotype``.

        All cells of the space are equally likely, none comes twice, and the found one does not come. A longer list
        begins with the shorter one. The list is shorter than ``count`` where the space has no more cells.
        """
        ...

    def baselines(self, params: Any, genotype: Genotype) -> Sequence[Arm]:
        """Networks made by hand with as many parameters, if the task has any."""
        ...

    def retrain(self, params: Any, network: Mapping[str, Any]) -> Program[Trained]:
        """The training of an arm's network, with the settings and the seed of the section retrain."""
        ...

    def evaluate(self, params: Any, network: Mapping[str, Any], weights: Path) -> Evaluation:
        """Runs an arm's network with these weights on the test cases."""
        ...


class Speed(Protocol):
    """NAME.speed, which a task may leave out"""

    def measured_with(self) -> str:
        """What runs the networks, such as "ONNX Runtime on one thread"."""
        ...

    def latencies(self, params: Any, networks: Mapping[str, Mapping[str, Any]]) -> Mapping[str, float]:
        """Name of an arm -> median milliseconds for one case. All are measured under the same load, taking turns."""
        ...


class Latency(Protocol):
    """NAME.latency, which a task may leave out"""

    def size(self, params: Any) -> Mapping[str, Any]:
        """JSON of what the latency of an architecture depends on besides: the sizes that the stage retrain builds."""
        ...

    def inputs(self, params: Any) -> Mapping[str, Mapping[str, Any]]:
        """Input name -> ``shape`` of one case, ``type`` of its numbers, and ``below``, which the numbers stay."""
        ...

    def network(self, params: Any, genotype: Genotype) -> bytes:
        """The ONNX file of an architecture as the stage export would write it, with made-up weights."""
        ...

    def macs(self, params: Any, genotype: Genotype) -> int:
        """Multiply-accumulates of an architecture's network for one case."""
        ...

    def opset(self, params: Any) -> int:
        """The version of ONNX that the files need."""
        ...


class Testing(Protocol):
    """NAME.testing"""

    def evaluate_weights(self, params: Any, weights: Path) -> Evaluation:
        """Runs the network of artifacts/genotype with these weights on the test cases.

        The evaluation's ``costs`` contain ``params``.
        """
        ...

    def class_scores(self, evaluation: Evaluation) -> Mapping[str, float | None] | None:
        """The score of each class or series; None when the task has neither."""
        ...

    def notices(self, evaluation: Evaluation) -> Sequence[str]:
        """What a user should know about these answers although the score may hide it, one line each."""
        ...

    def write_results(self, folder: Path, evaluation: Evaluation) -> None:
        """Writes the task's own result files, if there are any, beside metrics.json."""
        ...


@dataclass(frozen=True)
class ExportResult:
    """The result of an export. ``lines`` are printed; ``evaluation`` is about the exported file."""

    record: ExportRecord
    evaluation: Evaluation
    lines: Sequence[str]


class Export(Protocol):
    """NAME.export"""

    def export(self, params: Any, folder: Path) -> ExportResult:
        """Writes the exported file and its companions into an empty folder, and checks the file against torch.

        The same weights give the same bytes: the files name no run, commit, date or path. Raises UserError when
        the file and torch give different answers.
        """
        ...


class Exported(Protocol):
    """NAME.exported"""

    def evaluate(self, exported: Path) -> Evaluation:
        """Runs an exported file on the test cases. The evaluation's ``costs`` contain ``size_bytes``."""
        ...

    def answers(self, exported: Path, cases: int) -> NDArray:
        """The answers of an exported file to the first test cases."""
        ...

    def one_call(self, exported: Path) -> Callable[[], object] | None:
        """A function that runs an exported file on one case, for measuring its latency; None where nobody runs it here."""
        ...

    def example(self) -> Mapping[str, NDArray]:
        """Input name -> array of a few test cases; empty when the exported file is not ONNX."""
        ...

    def measures(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Numbers about a version besides its scores, for registry.json and the version's tags."""
        ...

    def version_tags(self) -> Mapping[str, str]:
        """Additional tags for a version."""
        ...


@dataclass(frozen=True)
class Words:
    """How the report speaks of what a task finds. The defaults are those of networks with a supernet."""

    parts: str = "cells"  # what the drawing shows
    place: str = "edge"  # where one operation is chosen
    weights: str = "weights"  # what is trained
    reading: str = (
        "The network is built from these cells. An arrow applies its operation to the output of the node where it starts"
        " and passes the result to the node where it ends. Each node adds up its inputs."
    )
    signs: str = (
        "All panels except the first two show signs of a search that collapses: the mix loses its entropy, skip connections"
        " take over, the genotype never settles{eigenvalue}. Validation uses the batch"
        " statistics of the training, where the mix was smoothed: it may fall when the mix decides. The table below has the"
        " {name} with statistics of its own."
    )
    choosing: str = "for the mix, and for the mix in which all operations except the chosen ones are zero"  # what is measured
    gap: str = (
        "what the search loses when each edge keeps one operation instead of a mix of all: with the weights of the search,"
        " its validation {name} goes from {before} to {after}. The network above was trained anew and does not have these"
        " weights."
    )
    anew: str = "The network of the genotype was trained from scratch"


class Views(Protocol):
    """NAME.views"""

    def words(self) -> Words:
        """How the report speaks of what the task finds."""
        ...

    def test_panel(self, params: Params, evaluation: Evaluation) -> str:
        """The report's section about the test cases, as HTML."""
        ...

    def data_words(self) -> str:
        """One sentence about the data, for the report."""
        ...

    def card(self, evaluation: Evaluation, params: Any) -> TaskCard:
        """The parts of the model card that only the task can write."""
        ...
