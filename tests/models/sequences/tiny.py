"""Searches of recurrent cells small enough for tests: a wave with noise, a text of a few letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from models.search.early_stopping import EarlyStopping
from models.search.growth import GrowthConfig
from models.search.penalties import Discretization, Rising, beta, entropy
from models.search.program import Found, Loaders, Search, SearchConfig
from models.search.spaces import SearchSpace
from models.search.strategies import Alternating
from models.sequences.search import SupernetConfig, sequence_search
from models.sequences.skeleton import SeriesShape
from models.sequences.spaces import SPACES, search_space
from models.sequences.task import SequenceTask, SeriesTask, TextTask
from models.training.batches import ShuffledIndices
from models.training.evaluation import Batch
from models.training.events import Listener, State, silent
from models.training.loop import run
from models.training.seeds import generator
from tests.models.tiny import ALPHA, STRATEGIES

SHAPE = SeriesShape(lookback=6, horizon=3, variables=3, targets=2)
BATCH, CASES, TOKENS, HIDDEN = 4, 8, 5, 4
KINDS = ("series", "text")
PENALTIES: Mapping[str, Callable[[SearchSpace], Rising]] = {
    "beta": lambda space: Rising(beta, 50.0, 2),
    "entropy": lambda space: Rising(entropy, 3.0, 2),
    "discretization": lambda space: Rising(Discretization(space), 30.0, 2),
}


def series(cases: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows (cases, L, V) and their targets (cases, horizon + 1, K)."""
    source = torch.Generator().manual_seed(seed)
    length = SHAPE.lookback + SHAPE.horizon
    start = 6 * torch.rand(cases, 1, 1, generator=source)
    noise = 0.1 * torch.randn(cases, length, SHAPE.variables, generator=source)
    wave = torch.sin(start + torch.arange(length)[:, None] + torch.arange(SHAPE.variables)) + noise
    truth = wave[:, SHAPE.lookback :, : SHAPE.targets]
    return wave[:, : SHAPE.lookback], torch.cat([truth, torch.full_like(truth[:, :1], 1.5)], dim=1)


def in_default_type(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype()) if x.is_floating_point() else x


def text(cases: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens (cases, T) of a text in which each letter is likely to follow the one before, and those one step later."""
    source = torch.Generator().manual_seed(seed)
    steps = 1 + (torch.rand(cases, SHAPE.lookback + 1, generator=source) < 0.1)
    tokens = steps.cumsum(dim=1) % TOKENS
    return tokens[:, :-1], tokens[:, 1:]


class Stream:
    def __init__(self, x: Tensor, target: Tensor, name: str):
        self.x, self.target = in_default_type(x), in_default_type(target)
        self.order = ShuffledIndices(torch.arange(len(x)), BATCH, generator(0, name))

    def __len__(self) -> int:
        return len(self.order)

    def __next__(self) -> Batch:
        chosen = next(self.order)
        return self.x[chosen], self.target[chosen]

    def state_dict(self) -> dict[str, Any]:
        return self.order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order.load_state_dict(state)


def loaders(kind: str, *, single: bool = False) -> Loaders:
    """Two batches per epoch; the stream for the architecture has three, so that epochs end in the middle of a pass."""
    make = series if kind == "series" else text
    x, target = map(in_default_type, make(CASES + BATCH, 2))

    def one_pass() -> Iterator[Batch]:
        return zip(x.split(BATCH), target.split(BATCH), strict=True)

    return Loaders(
        Stream(*make(CASES, 1), "train"),
        None if single else Stream(x, target, "architecture"),
        one_pass,
        one_pass,
    )


def task_of(kind: str, space: SearchSpace) -> SequenceTask:
    if kind == "series":
        return SeriesTask(space, SHAPE, seed=0)
    return TextTask(space, torch.ones(TOKENS), embedding=3, seed=0)


def config(**changes: Any) -> SearchConfig:
    return SearchConfig(**{"epochs": 2, "curvature_cases": 0, **changes})


SMALLEST = config()


def program(
    name: str,
    family: str = "two-input",
    kind: str = "series",
    config: SearchConfig = SMALLEST,
    *,
    penalty: str | None = None,
    growth: GrowthConfig | None = None,
    early_stopping: EarlyStopping | None = None,
    nodes: int = 2,
    operations: tuple[str, ...] = ("none", "tanh", "identity", "sigmoid"),
    precision: torch.dtype = torch.float32,
) -> Search:
    """A search with a strategy of ``STRATEGIES``."""
    space = search_space(family, nodes, operations)

    def strategy_of(start: SearchSpace) -> Alternating:
        strategy = STRATEGIES[name](start, config.epochs)
        strategy.penalties = (PENALTIES[penalty](space),) if penalty else ()
        return strategy

    return sequence_search(
        task_of(kind, space),
        strategy_of,
        loaders(kind, single=name.startswith("single")),
        config,
        SupernetConfig(HIDDEN, growth),
        early_stopping=early_stopping,
        precision=precision,
    )


def search(*arguments: Any, on_event: Listener = silent, resume: State | None = None, **named: Any) -> Found:
    return run(program(*arguments, **named), on_event=on_event, resume=resume)


__all__ = ["ALPHA", "SPACES", "STRATEGIES"]
