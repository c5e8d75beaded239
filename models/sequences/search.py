"""Puts the search of a network for sequences together: task, supernet on its device, strategy, data and growth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.errors import InvalidInput
from models.search.early_stopping import EarlyStopping
from models.search.growth import AddNode, AddOperation, Growth, GrowthConfig
from models.search.program import Loaders, Search, SearchConfig
from models.search.spaces import SearchSpace
from models.search.strategies import Strategy
from models.sequences.spaces import nodes_of, operations_of, search_space
from models.sequences.task import SequenceTask
from models.training.seeds import generator


@dataclass(frozen=True)
class SupernetConfig:
    """The hidden size of the supernet when the search begins, and how it grows; None: it stays as it is."""

    hidden: int = 32
    growth: GrowthConfig | None = None


def sequence_search(
    task: SequenceTask,
    strategy_of: Callable[[SearchSpace], Strategy],
    loaders: Loaders,
    config: SearchConfig,
    size: SupernetConfig,
    *,
    early_stopping: EarlyStopping | None = None,
    precision: torch.dtype = torch.float32,
    device: torch.device = torch.device("cpu"),
) -> Search:
    """The search as a program of the training loop. ``strategy_of`` makes a strategy for the space at the start.

    The space of the task is the one that growth ends with: the search starts without the nodes and operations that growth
    adds. Raises InvalidInput where the space does not have them.
    """
    start = start_of(task, size.growth)
    supernet = task.supernet(size.hidden, start).to(device)
    growth = None
    if size.growth is not None:
        growth = Growth(supernet, size.growth, generator(task.seed, "growth"))
    return Search(
        task,
        supernet,
        strategy_of(start),
        loaders,
        config,
        early_stopping=early_stopping,
        precision=precision,
        growth=growth,
        flush_denormals=True,
    )


def start_of(task: SequenceTask, growth: GrowthConfig | None) -> SearchSpace:
    """The space that a search starts with."""
    edits = growth.edits if growth else ()
    nodes = sum(isinstance(edit, AddNode) for edit in edits)
    names = [edit.name for edit in edits if isinstance(edit, AddOperation)]
    every = operations_of(task.space)
    kept = len(every) - len(names)
    if list(every[kept:]) != names:
        raise InvalidInput(
            f"growth adds the operations {', '.join(names)}, but the space ends with {', '.join(every[kept:])}; name the same"
            " ones in the same order"
        )
    return search_space(task.space.family, nodes_of(task.space) - nodes, every[:kept])
