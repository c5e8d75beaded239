"""Families of search spaces: what genotypes, networks and drawings of all spaces of a family have in common.

S1 to S5 are the family "darts", because one kind of network reads all their genotypes; NAS-Bench-201 is a
family by itself. All that differs between families is said here, except how networks are built
(models/images/builders.py): this module needs no torch, so that settings can be checked and genotypes read
without loading it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.images.notations import arch_str, from_arch_str, from_pairs, to_pairs
from models.images.sizes import MINIMUM_CELLS, STAGES
from models.images.spaces import NASBENCH201_NODES, NODES
from models.search.genotype import Genotype
from models.search.spaces import SearchSpace


@dataclass(frozen=True)
class Size:
    """Channels of the first cells, and cells: all of them or those of one stage (``Family.cells_of``)."""

    channels: int
    cells: int


@dataclass(frozen=True)
class CellLayout:
    """How a cell is drawn: its nodes in the order in which they are computed."""

    nodes: Sequence[str]  # titles
    inputs: int  # so many of the first nodes are the cell's inputs
    outputs: Sequence[int]  # the nodes that form the cell's output
    titles: Mapping[str, str] = field(default_factory=dict)  # group -> title, where "GROUP cell" does not do


@dataclass(frozen=True)
class Family:
    """What is common to the spaces of a family."""

    name: str  # ``space`` in genotype.json
    full_space: str  # the space of the family with the most candidates
    published: Size  # what the papers train: genotypes are compared at this size
    minimum_cells: int
    cells_of: str  # what a number of cells counts: those of the "network" or those of a "stage"
    stages: int | None  # the only number of stages that networks have; None: any
    watched_group: str  # cell type whose skip connections DARTS+ counts
    layout: CellLayout
    to_json: Callable[[Genotype], dict[str, Any]]  # what genotype.json holds beside ``space``
    from_json: Callable[[Mapping[str, Any]], Genotype]  # its inverse; raises InvalidInput
    table_key: Callable[[Genotype], str] | None = (
        None  # what a table of trained cells calls a genotype; None: no table
    )
    # Multiply-accumulates and classes -> what the publications report besides.
    extra_counts: Callable[[int, int], dict[str, int]] = lambda _macs, _classes: {}


DARTS = Family(
    name="darts",
    full_space="s5",
    published=Size(channels=36, cells=20),
    minimum_cells=MINIMUM_CELLS,
    cells_of="network",
    stages=STAGES,
    watched_group="normal",
    layout=CellLayout(
        nodes=["cell k\u22122", "cell k\u22121", *(f"node {node}" for node in range(NODES))],
        inputs=2,
        outputs=range(2, 2 + NODES),
        titles={"reduce": "reduce cell: inputs to half their side"},
    ),
    to_json=to_pairs,
    from_json=from_pairs,
)
NASBENCH201 = Family(
    name="nasbench201",
    full_space="nasbench201",
    published=Size(channels=16, cells=5),
    minimum_cells=1,
    cells_of="stage",
    stages=None,
    watched_group="cell",
    layout=CellLayout(
        nodes=["input", *(f"node {node}" for node in range(1, NASBENCH201_NODES))],
        inputs=1,
        outputs=[NASBENCH201_NODES - 1],
        titles={"cell": "cell"},
    ),
    to_json=lambda genotype: {"arch_str": arch_str(genotype)},
    from_json=lambda content: from_arch_str(content.get("arch_str")),
    table_key=arch_str,
    extra_counts=lambda macs, classes: {"flops": macs + classes},  # the classifier's biases count
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in (DARTS, NASBENCH201)}


def family_of(subject: SearchSpace | Genotype) -> Family:
    """The family that a space or a genotype belongs to."""
    return FAMILIES[subject.family if isinstance(subject, SearchSpace) else subject.space]
