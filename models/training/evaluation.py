"""Measures a network on many batches: mean loss, and the means of what else the task measures per case."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.training.distributed import own_items, sums

Batch = tuple[Any, Tensor]  # the network's input, and the targets (cases, ...)


class Criterion(Protocol):
    """What a training minimizes, and what it measures besides."""

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar with gradients."""
        ...

    def measures(self, output: Any, target: Tensor) -> Mapping[str, Tensor]:
        """Name -> sum over the cases of a batch, such as "accuracy" -> number of right answers."""
        ...


class Tally:
    """Sums of the loss and the measures over many batches.

    The sums stay on the device, so nothing waits for them before ``means``.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor | float] = {}
        self.cases = 0

    def add(self, loss: Tensor, measures: Mapping[str, Tensor], cases: int) -> None:
        """Adds one batch: its mean loss, the sums of its measures, and its number of cases."""
        values = {"loss": loss.detach() * cases, **{name: value.detach() for name, value in measures.items()}}
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        self.cases += cases

    def means(self, prefix: str = "") -> dict[str, float]:
        """Name, with ``prefix`` in front -> mean per case over all processes."""
        *totals, cases = sums(*self.totals.values(), self.cases)
        return {f"{prefix}{name}": total / cases for name, total in zip(self.totals, totals, strict=True)}


@torch.no_grad()
def evaluate(
    module: nn.Module, output: Callable[[Any], Any], batches: Iterable[Batch], criterion: Criterion
) -> dict[str, float]:
    """Mean loss and measures in evaluation mode.

    ``output`` maps the input of a batch to the output of ``module``.
    """
    tally = Tally()
    with evaluating(module):
        for x, target in own_items(batches):
            answer = output(x)
            tally.add(criterion.loss(answer, target), criterion.measures(answer, target), len(target))
    return tally.means()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts the module into evaluation mode within the block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
