"""How curves are searched and fitted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from models.curves.cells import SPACE, Curve
from torch import Tensor, nn

from models.training.ahead import Ahead
from models.training.batches import ShuffledIndices
from models.training.evaluation import Batch, Tally, evaluate
from models.training.events import Listener, Row, State
from models.training.precision import computing_in, in_float32
from models.training.trained import Trained

Points = tuple[Tensor, Tensor]  # x (N,), y (N,)


class Curves:
    """What a search needs to know about curves."""

    space = SPACE
    metric, higher_is_better = "squared_error", False
    generators: Mapping[str, torch.Generator] = {}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()

    def measures(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        return {"squared_error": (output.detach() - target).square().sum()}

    def recalibrated(
        self, supernet: nn.Module, output: Callable[[Any], Any], batches: Iterable[Batch]
    ) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class Stream:
    """Batches of points in random order, endlessly."""

    def __init__(self, points: Points, indices: Tensor, batch_size: int, generator: torch.Generator):
        self.points, self.shuffled = points, ShuffledIndices(indices, batch_size, generator)

    def __len__(self) -> int:
        return len(self.shuffled)

    def __next__(self) -> Batch:
        chosen = next(self.shuffled)
        return self.points[0][chosen], self.points[1][chosen]

    def state_dict(self) -> dict[str, Any]:
        return self.shuffled.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shuffled.load_state_dict(state)


def in_order(points: Points, size: int) -> Iterator[Batch]:
    """One pass over the points."""
    yield from zip(points[0].split(size), points[1].split(size), strict=True)


class Fitting:
    """The training of a found network, by Adam."""

    remedy = "lower retrain.learning_rate"

    def __init__(
        self,
        network: Curve,
        stream: Stream,
        valid: Points,
        epochs: int,
        learning_rate: float,
        precision: torch.dtype,
    ):
        self.network, self.valid, self.epochs = network, valid, epochs
        self.stream = Ahead(stream)
        self.inputs = [self.stream]
        self.precision = precision
        self.optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.criterion, self.tally = Curves(), Tally()

    def start_epoch(self, epoch: int) -> int:
        self.tally = Tally()
        return len(self.stream)

    def step(self) -> None:
        x, y = next(self.stream)
        with computing_in(self.precision, x.device):
            output = in_float32(self.network(x))
        loss = self.criterion.loss(output, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.tally.add(loss, self.criterion.measures(output, y), len(y))

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        valid = evaluate(self.network, self.network, in_order(self.valid, 64), self.criterion)
        return {**self.tally.means("train_"), **{f"valid_{name}": value for name, value in valid.items()}}

    def stopped(self, history: Sequence[Row]) -> bool:
        return False

    def state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
        }

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.load_state_dict(state["stream"])

    def result(self, history: Sequence[Row], on_event: Listener) -> Trained:
        weights = {name: weight.detach().clone() for name, weight in self.network.state_dict().items()}
        return Trained(history, weights, len(history))
