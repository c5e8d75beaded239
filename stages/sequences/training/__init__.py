"""The search and the retraining of networks for series and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import nn

from models.search.genotype import Genotype
from models.search.growth import AddNode, AddOperation, Growing, GrowthConfig, Widen
from models.search.program import Search, SearchConfig
from models.sequences.builders import networks
from models.sequences.retrain import RetrainConfig, Retraining
from models.sequences.search import SupernetConfig, sequence_search
from models.sequences.skeleton import SeriesShape
from models.sequences.spaces import named
from models.sequences.streams import tracks_in_order, windows_in_order
from models.sequences.task import SequenceTask, SeriesCriterion, SeriesTask, TextCriterion, TextTask
from models.training.precision import type_of
from stages.sequences.data import SequenceCard, read_card, shape_of
from stages.sequences.params import TEXT, Params, SearchParams
from stages.sequences.training.inputs import (
    EVALUATION_BATCH,
    characters,
    chunk_loaders,
    device,
    read_tokens,
    stream_of_text,
    stream_of_windows,
    tracks_for,
    window_loaders,
    windows_of,
)
from stages.strategies import early_stopping_of, strategy_of

_NARROW = 128  # numbers in a state


def _fit_threads(hidden: int) -> None:
    """One thread for a narrow cell, whose many small operations cost a second thread more than they give it.

    The default search took 68 s with one thread of two idle cores and 73 s with both (n = 1). With two threads and other
    programs on both cores, an epoch of 2 s took 65 s, because threads wait for each other.
    """
    if hidden <= _NARROW and device().type == "cpu":
        torch.set_num_threads(1)


def inputs(params: Params) -> Mapping[str, str]:
    return {}


def search(params: Params) -> Search:
    config, card = params.search, read_card()
    _fit_threads(config.hidden)
    task = _task(card, config)
    return sequence_search(
        task,
        lambda space: strategy_of(config, space, device(), largest=task.space),
        (chunk_loaders if card.kind == TEXT else window_loaders)(card, config),
        SearchConfig(
            epochs=config.epochs, curvature_cases=config.curvature_windows, **config.weights.model_dump()
        ),
        SupernetConfig(
            hidden=config.growth.hidden_start or config.hidden
            if config.growth.mode != "none"
            else config.hidden,
            growth=growth_of(config),
        ),
        early_stopping=early_stopping_of(config, next(iter(task.space.groups))),
        precision=type_of(params.train.precision),
        device=device(),
    )


def _task(card: SequenceCard, config: SearchParams) -> SequenceTask:
    space = named(config.named_space())
    if card.kind == TEXT:
        return TextTask(space, characters(), config.embedding, config.seed)
    shape = shape_of(card, config.embedding)
    assert isinstance(shape, SeriesShape)
    return SeriesTask(space, shape, config.seed)


def growth_of(config: SearchParams) -> GrowthConfig | None:
    """What the search adds while it trains: nodes first, then operations, then width."""
    growth = config.growth
    if growth.mode == "none":
        return None
    edits: list[Growing] = [AddNode() for _ in range(config.nodes - growth.start_nodes)]
    edits += [AddOperation(name) for name in growth.add_operations]
    if growth.hidden_start not in (None, config.hidden):
        edits.append(Widen(config.hidden))
    return GrowthConfig(
        edits,
        growth.mode,
        growth.every,
        growth.patience if growth.trigger == "plateau" else None,
        growth.budget,
    )


def retrain(params: Params, genotype: Genotype) -> Retraining:
    card, config = read_card(), params.retrain
    shape = shape_of(card, config.embedding)
    made = networks(genotype, shape, config.hidden, seed=config.seed, baselines=config.baselines)
    return retraining_of(made, card, params)


def retraining_of(made: Mapping[str, nn.Module], card: SequenceCard, params: Params) -> Retraining:
    """The training of networks, one of which is "network", on the prepared data."""
    config, at = params.retrain, device()
    _fit_threads(config.hidden)
    known = config.model_dump()
    settings: dict[str, Any] = {
        "config": RetrainConfig(**{field.name: known[field.name] for field in fields(RetrainConfig)}),
        "precision": type_of(params.train.precision),
    }
    on_device = {name: network.to(at) for name, network in made.items()}
    if card.kind == TEXT:
        criterion, tokens = TextCriterion(characters()), read_tokens(card, "val")
        tracks = tracks_for(len(tokens), card.chunk)
        valid = partial(tracks_in_order, tokens, tracks, card.chunk, at)
        stream = stream_of_text(card, config)
        return Retraining(on_device, stream, valid, criterion=criterion, metric=criterion.metric, carries=True, **settings)  # fmt: skip
    criterion, windows = SeriesCriterion(), windows_of(card, "val")
    valid = partial(windows_in_order, windows, EVALUATION_BATCH, at)
    stream = stream_of_windows(card, config)
    return Retraining(on_device, stream, valid, criterion=criterion, metric=criterion.metric, **settings)
