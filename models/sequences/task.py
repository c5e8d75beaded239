"""Series and text as a search sees them: space, supernet, loss and measures.

Axes: B batch, K targets, T time steps, C tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.search.spaces import SearchSpace
from models.sequences.skeleton import Forecaster, LanguageModel, SeriesShape
from models.sequences.supercell import supercell_of
from models.sequences.supernet import SequenceSupernet
from models.training.evaluation import Batch
from models.training.seeds import seeded


class SeriesCriterion:
    """Forecasts against the truth.

    Outputs are forecasts (B, horizon, K) in standardized units. Targets are (B, horizon + 1, K): the truth, and as the last
    row what turns an error of each target into units of MASE: its standard deviation over the in-sample error of the seasonal
    naive forecast.
    """

    metric, higher_is_better = "mase", False

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean absolute error in standardized units."""
        return F.l1_loss(output, target[:, :-1])

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The sum over the windows of their MASE."""
        return {"mase": window_errors(output, target).sum()}


def window_errors(output: Tensor, target: Tensor) -> Tensor:
    """The MASE (B,) of each window, the mean over its targets and the steps of the horizon."""
    errors = (output.detach() - target[:, :-1]).abs() * target[:, -1:]
    return errors.mean(dim=(1, 2))


class TextCriterion:
    """The next token at every step. ``characters`` (C,) is how many characters each token of the vocabulary has."""

    metric, higher_is_better = "bits_per_character", False

    def __init__(self, characters: Tensor):
        self.characters = characters

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy in nats per token of logits (B, T, C) and tokens (B, T)."""
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The bits per character of the batch, times its number of chunks."""
        with torch.no_grad():
            nats = F.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="sum")
        characters = self.characters.to(target.device)[target].sum()
        return {"bits_per_character": nats / math.log(2) / characters * len(target)}


class _Task:
    """What both kinds share. ``space`` is the largest one of the search. ``seed`` initializes the modules."""

    metric: str
    higher_is_better = False

    def __init__(self, space: SearchSpace, seed: int):
        self.space, self.seed = space, seed
        self.generators: Mapping[str, torch.Generator] = {}

    def recalibrated(
        self, supernet: nn.Module, output: Callable[[Any], Any], batches: Iterable[Batch]
    ) -> AbstractContextManager[None]:
        """There are no running statistics."""
        return nullcontext()


class SeriesTask(SeriesCriterion, _Task):
    """Forecasting of series of one shape."""

    def __init__(self, space: SearchSpace, shape: SeriesShape, seed: int):
        _Task.__init__(self, space, seed)
        self.shape = shape

    def supernet(self, hidden: int, start: SearchSpace | None = None) -> SequenceSupernet:
        """The supernet of ``start`` (None: of the whole space) with freshly initialized weights."""
        space = start or self.space
        with seeded(self.seed, "supernet"):
            cell = supercell_of(space, self.shape.variables, hidden)
            return SequenceSupernet(Forecaster(cell, self.shape), space.family)


class TextTask(TextCriterion, _Task):
    """Prediction of the next token of a text."""

    def __init__(self, space: SearchSpace, characters: Tensor, embedding: int, seed: int):
        TextCriterion.__init__(self, characters)
        _Task.__init__(self, space, seed)
        self.embedding = embedding

    def supernet(self, hidden: int, start: SearchSpace | None = None) -> SequenceSupernet:
        """The supernet of ``start`` (None: of the whole space) with freshly initialized weights."""
        space = start or self.space
        with seeded(self.seed, "supernet"):
            cell = supercell_of(space, self.embedding, hidden)
            return SequenceSupernet(LanguageModel(cell, len(self.characters), self.embedding), space.family)


SequenceTask = SeriesTask | TextTask
