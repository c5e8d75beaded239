"""Puts the search of a network for images together: task, supernet on its device, strategy and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from models.images.benchmark import Benchmark
from models.images.supernet import stacks
from models.images.task import ImageTask
from models.search.early_stopping import EarlyStopping
from models.search.freezing import FreezingConfig, GradientAgreement
from models.search.genotype import Genotype
from models.search.program import Loaders, Search, SearchConfig
from models.search.strategies import Strategy
from models.training.evaluation import Criterion


@dataclass(frozen=True)
class SupernetConfig:
    """The size of the supernet; defaults are the published ones of DARTS.

    ``compile`` compiles the perturbed passes, which takes minutes at the start; with "graphs" they are replayed
    as CUDA graphs. The search is no faster for it on a CPU; on a GPU neither was measured.
    """

    channels: int = 16
    cells: int = 8
    compile: bool | Literal["graphs"] = False


def image_search(
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    config: SearchConfig,
    size: SupernetConfig,
    *,
    early_stopping: EarlyStopping | None = None,
    freezing: FreezingConfig | None = None,
    benchmark: Benchmark | None = None,
    scoring: Criterion | None = None,
    precision: torch.dtype = torch.float32,
    device: torch.device = torch.device("cpu"),
) -> Search:
    """The search as a program of the training loop.

    With a ``benchmark``, the history has the tabulated accuracy and rank of each genotype. ``scoring`` is that
    of ``Search``.
    """
    supernet = task.supernet(channels=size.channels, cells=size.cells)
    supernet = supernet.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if size.compile:
        supernet.compile_probes(graphs=size.compile == "graphs")

    def columns(genotype: Genotype) -> Mapping[str, float]:
        if benchmark is None:
            return {}
        standing = benchmark.standing(genotype)
        return {"tabulated_accuracy": standing.accuracy, "tabulated_rank": standing.rank}

    return Search(
        task,
        supernet,
        strategy,
        loaders,
        config,
        early_stopping=early_stopping,
        freezing=GradientAgreement(stacks(supernet), freezing) if freezing else None,
        precision=precision,
        columns=columns,
        scoring=scoring,
    )
