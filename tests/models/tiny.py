"""Searches small enough for tests: strategies by name, random images, networks of a few thousand weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.images.batches import Batch, BatchStream, Preprocess, Split, batches
from models.images.benchmark import Benchmark
from models.images.search import SupernetConfig, image_search
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.search.early_stopping import EarlyStopping
from models.search.gradients import Joint, Pathwise, unrolled
from models.search.objective import BatchObjective
from models.search.program import Found, Loaders, SearchConfig
from models.search.smoothing import MeanShift, MeanShiftConfig, Perturbation, PerturbationConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating, Strategy, sigmoid
from models.training.events import Listener, State, silent
from models.training.loop import run
from models.training.seeds import generator

CLASSES, SIDE, BATCH = 3, 8, 4
PREPROCESS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), padding=1, mirror=True)
ALPHA = AlphaConfig(learning_rate=0.1, warmup_epochs=0)


def alternating(space: SearchSpace, epochs: int, **arguments: Any) -> Alternating:
    return Alternating(space, ALPHA, generator(0, "alpha"), **arguments)


def _perturbed(space: SearchSpace, epochs: int, steps: int) -> Alternating:
    smoothing = Perturbation(PerturbationConfig(steps=steps), epochs, generator(0, "smoothing"))
    return alternating(space, epochs, smoothing=smoothing)


def _shifted(space: SearchSpace, epochs: int, config: MeanShiftConfig, **arguments: Any) -> Alternating:
    smoothing = MeanShift(config, epochs, generator(0, "smoothing"))
    return alternating(space, epochs, smoothing=smoothing, **arguments)


STRATEGIES: Mapping[str, Callable[[SearchSpace, int], Alternating]] = {
    "darts": alternating,
    "darts-2nd": lambda space, epochs: alternating(space, epochs, estimator=Pathwise(unrolled)),
    "sdarts-rs": lambda space, epochs: _perturbed(space, epochs, steps=0),
    "sdarts-adv": lambda space, epochs: _perturbed(space, epochs, steps=7),
    "ms-darts": lambda space, epochs: _shifted(space, epochs, MeanShiftConfig()),
    "ms-darts-auto": lambda space, epochs: _shifted(
        space, epochs, MeanShiftConfig(bandwidth="auto", sign=-1, temperature=0.1)
    ),
    "single-level": lambda space, epochs: alternating(space, epochs, estimator=Joint()),
    "single-level-sigmoid": lambda space, epochs: alternating(
        space, epochs, estimator=Joint(), relaxation=sigmoid
    ),
}


class DefaultTypeStream(BatchStream):
    """Batches in the default floating-point type of PyTorch."""

    def __next__(self) -> Batch:
        return in_default_type(super().__next__())


def in_default_type(batch: Batch) -> Batch:
    return batch[0].to(torch.get_default_dtype()), batch[1]


def split(images: int, seed: int) -> Split:
    """Random images, brighter the higher their class."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % CLASSES
    noise = torch.randint(0, 150, (images, SIDE, SIDE, 3), generator=source)
    return Split((noise + 40 * labels[:, None, None, None]).to(torch.uint8), labels)


def loaders(*, single: bool = False, images: int = 8) -> Loaders:
    """Two batches per epoch by default. With ``single``, alpha gets the batches of the weights."""
    train, held_out = split(images, 1), split(images, 2)

    def stream(of: Split, name: str) -> BatchStream:
        return DefaultTypeStream(of, BATCH, PREPROCESS, generator(0, name))

    def one_pass(of: Split) -> Iterable[Batch]:
        return map(in_default_type, batches(of, BATCH, PREPROCESS))

    return Loaders(
        stream(train, "train"),
        None if single else stream(held_out, "architecture"),
        lambda: one_pass(held_out),
        lambda: one_pass(train),
    )


def task(space: str) -> ImageTask:
    stages = 2 if space == "nasbench201" else 3
    return ImageTask(search_space(space), (SIDE, SIDE, 3), CLASSES, seed=0, stages=stages)


def config(**changes: Any) -> SearchConfig:
    return SearchConfig(**{"epochs": 2, "curvature_cases": 0, **changes})


SMALLEST = config()


def size(space: str, channels: int = 2) -> SupernetConfig:
    return SupernetConfig(channels, cells=1 if space == "nasbench201" else 3)


def search(
    name: str,
    space: str,
    config: SearchConfig = SMALLEST,
    *,
    strategy: Strategy | None = None,
    data: Loaders | None = None,
    early_stopping: EarlyStopping | None = None,
    benchmark: Benchmark | None = None,
    precision: torch.dtype = torch.float32,
    on_event: Listener = silent,
    resume: State | None = None,
) -> Found:
    """A whole search with a strategy of ``STRATEGIES``, or with one that the caller has built."""
    program = image_search(
        task(space),
        strategy or STRATEGIES[name](search_space(space), 2),
        data or loaders(single=name.startswith("single")),
        config,
        size(space),
        early_stopping=early_stopping,
        benchmark=benchmark,
        precision=precision,
    )
    return run(program, on_event=on_event, resume=resume)


def stacked(found: Found) -> dict[str, Tensor]:
    """Group -> the architecture parameters of all epochs (epochs, edges, operations)."""
    return {group: torch.stack([alphas[group] for alphas in found.alphas]) for group in found.alphas[0]}


def objectives(
    space: str, channels: int = 2
) -> tuple[ImageTask, BatchObjective, BatchObjective, dict[str, Tensor]]:
    """The task, a train and a validation objective of one batch each, and the weights of their supernet."""
    tiny = task(space)
    supernet = tiny.supernet(channels=channels, cells=size(space).cells)
    data = loaders()
    assert data.architecture is not None
    train = BatchObjective(tiny, supernet, *next(data.train))
    valid = BatchObjective(tiny, supernet, *next(data.architecture))
    return tiny, train, valid, dict(supernet.named_parameters())
