"""The search and the fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from models.curves.cells import SPACE, Curve, Supernet
from models.curves.training import Curves, Fitting, Points, Stream, in_order
from stages.curves.data import read_split
from stages.curves.params import Params

from models.search.genotype import Genotype
from models.search.program import Loaders, Search, SearchConfig
from models.training.precision import type_of
from models.training.seeds import generator
from stages.strategies import early_stopping_of, needs_architecture_batches, strategy_of


def points(name: str) -> Points:
    x, y = torch.from_numpy(read_split(name)).unbind(dim=1)
    return x.contiguous(), y.contiguous()


def inputs(params: Params) -> Mapping[str, str]:
    return {}


def search(params: Params) -> Search:
    config, train, valid = params.search, points("train"), points("val")
    order = torch.randperm(len(train[0]), generator=generator(config.seed, "halves"))
    halves = order.chunk(2) if needs_architecture_batches(config) else (order, order)

    def stream(name: str, indices: torch.Tensor) -> Stream:
        return Stream(train, indices, config.batch_size, generator(config.seed, name))

    loaders = Loaders(
        stream("train", halves[0]),
        stream("architecture", halves[1]) if needs_architecture_batches(config) else None,
        valid=lambda: in_order(valid, 64),
        calibration=lambda: in_order(train, 64),
    )
    return Search(
        Curves(),
        Supernet(),
        strategy_of(config, SPACE, torch.device("cpu")),
        loaders,
        SearchConfig(epochs=config.epochs, **config.weights.model_dump()),
        early_stopping=early_stopping_of(config, "cell"),
        precision=type_of(params.train.precision),
    )


def retrain(params: Params, genotype: Genotype) -> Fitting:
    config, train = params.retrain, points("train")
    everything = torch.arange(len(train[0]))
    stream = Stream(train, everything, config.batch_size, generator(config.seed, "train"))
    precision = type_of(params.train.precision)
    return Fitting(Curve(genotype), stream, points("val"), config.epochs, config.learning_rate, precision)
