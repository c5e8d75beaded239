"""Builds the networks for a series or a text: that of a genotype, and those it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.search.genotype import Genotype
from models.sequences.baselines import DLinear, LSTMCell, matched, parameters_of
from models.sequences.cell import FoundCell
from models.sequences.retrain import FOUND
from models.sequences.skeleton import Cell, Forecaster, LanguageModel, SeriesShape
from models.training.seeds import seeded

LSTM, DLINEAR = "lstm", "dlinear"


@dataclass(frozen=True)
class TextShape:
    """The sizes of a text's network besides those of its cell."""

    tokens: int
    embedding: int


Shape = SeriesShape | TextShape


def surrounding(make_cell: Callable[[int], Cell], shape: Shape) -> nn.Module:
    """The network around a cell, which ``make_cell`` makes for a number of inputs."""
    if isinstance(shape, TextShape):
        return LanguageModel(make_cell(shape.embedding), shape.tokens, shape.embedding)
    return Forecaster(make_cell(shape.variables), shape)


def found_network(genotype: Genotype, shape: Shape, hidden: int, *, seed: int) -> nn.Module:
    """The network of a genotype, freshly initialized."""
    with seeded(seed, FOUND):
        return surrounding(lambda inputs: FoundCell(genotype, inputs, hidden), shape)


def lstm_network(shape: Shape, units: int, *, seed: int) -> nn.Module:
    """The same network with an LSTM for a cell, freshly initialized."""
    with seeded(seed, LSTM):
        return surrounding(lambda inputs: LSTMCell(inputs, units), shape)


def dlinear_network(shape: SeriesShape, *, seed: int) -> nn.Module:
    """DLinear, freshly initialized."""
    with seeded(seed, DLINEAR):
        return DLinear(shape)


def lstm_units(shape: Shape, parameters: int) -> int:
    """The units with which the LSTM comes closest to that number of parameters."""
    return matched(lambda units: lstm_network(shape, units, seed=0), parameters)


def hidden_for(genotype: Genotype, shape: Shape, parameters: int) -> int:
    """The size of the state with which the network of a genotype comes closest to that number of parameters."""
    return matched(lambda hidden: found_network(genotype, shape, hidden, seed=0), parameters)


def networks(
    genotype: Genotype, shape: Shape, hidden: int, *, seed: int, baselines: bool
) -> dict[str, nn.Module]:
    """The network of a genotype and, with ``baselines``, an LSTM of as many parameters and, for series, DLinear."""
    made = {FOUND: found_network(genotype, shape, hidden, seed=seed)}
    if baselines:
        parameters = parameters_of(lambda: found_network(genotype, shape, hidden, seed=seed))
        made[LSTM] = lstm_network(shape, lstm_units(shape, parameters), seed=seed)
        if isinstance(shape, SeriesShape):
            made[DLINEAR] = dlinear_network(shape, seed=seed)
    return made
