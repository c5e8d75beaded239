"""The search and the retraining of networks for images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace

import torch

from models.images.balance import WithBalancedAccuracy, balanced_weights
from models.images.batches import BatchStream, Split, batches
from models.images.builders import FoundNetwork
from models.images.mixing import mixing
from models.images.retrain import Classification, RetrainConfig, Retraining
from models.images.search import SupernetConfig, image_search
from models.images.spaces import search_space
from models.images.task import ImageTask, found_network
from models.search.freezing import FreezingConfig
from models.search.genotype import Genotype
from models.search.program import Search, SearchConfig
from models.training.precision import type_of
from models.training.seeds import generator
from stages.errors import UserError
from stages.images.data import ImageCard
from stages.images.params import Params
from stages.images.training.inputs import (
    EVALUATION_BATCH,
    Images,
    calibration,
    device,
    loaders,
    read_images,
)
from stages.images.training.table import read_benchmark
from stages.latencies import penalties_of
from stages.strategies import early_stopping_of, strategy_of


def inputs(params: Params) -> Mapping[str, str]:
    return {"table": read_benchmark(params.search)[1]}


def search(params: Params) -> Search:
    return search_on(read_images(), params)


def retrain(params: Params, genotype: Genotype) -> Retraining:
    return retrain_on(read_images(), params, genotype)


def search_on(data: Images, params: Params) -> Search:
    """The search that params.yaml asks for, on these images."""
    config = params.search
    if config.compile == "graphs" and device().type != "cuda":
        raise UserError(
            "search.compile is graphs, but this machine has no CUDA device; set it to true or false"
        )
    space, stopping = search_space(config.space, exclude_none=config.exclude_none), config.early_stopping
    card = data.card
    task = ImageTask(space, card.image_shape, len(card.classes), config.seed, stages=config.stages)
    return image_search(
        task,
        strategy_of(config, space, device(), penalties_of(params, space, device())),
        loaders(data, config),
        SearchConfig(
            epochs=config.epochs,
            curvature_cases=config.curvature_images,
            landscape_points=config.landscape,
            **config.weights.model_dump(),
        ),
        SupernetConfig(config.channels, config.cells, config.compile),
        early_stopping=early_stopping_of(config, config.family().watched_group),
        freezing=None
        if stopping.agreement is None
        else FreezingConfig(stopping.agreement, stopping.agreement_steps),
        benchmark=read_benchmark(config)[0],
        scoring=WithBalancedAccuracy(task, class_weights(data.val, card)),
        precision=type_of(params.train.precision),
        device=device(),
    )


def retrain_on(data: Images, params: Params, genotype: Genotype) -> Retraining:
    """The training of a found network on these images."""
    config, card = params.retrain, data.card
    network = found_network(
        genotype,
        card.image_shape,
        len(card.classes),
        **config.network(),
        auxiliary=config.auxiliary_weight > 0,
    )
    return retraining_of(network, data, params)


def retraining_of(network: FoundNetwork, data: Images, params: Params) -> Retraining:
    """The training of a network on these images."""
    config, recipe, card = params.retrain, params.retrain.in_force(), data.card
    network = network.to(device=device(), memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    preprocess = replace(
        data.preprocess(cutout=config.cutout, device=device()),
        random_erasing=recipe.random_erasing,
        randaugment=recipe.randaugment,
        randaugment_magnitude=recipe.randaugment_magnitude,
    )
    stream = BatchStream(data.train, config.batch_size, preprocess, generator(config.seed, "train batches"))
    settings = {**config.model_dump(), **asdict(recipe)}
    return Retraining(
        network,
        stream,
        lambda: batches(data.val, EVALUATION_BATCH, preprocess),
        RetrainConfig(**{field.name: settings[field.name] for field in fields(RetrainConfig)}),
        generator(config.seed, "drop path"),
        class_weights=None if config.class_weights == "none" else class_weights(data.train, card).float(),
        scoring=WithBalancedAccuracy(Classification(), class_weights(data.val, card)),
        precision=type_of(params.train.precision),
        mixing=mixing(recipe.mixup, recipe.cutmix, recipe.mix_probability, generator(config.seed, "mixing")),
        calibration=lambda: calibration(data, preprocess, config),
    )


def class_weights(split: Split, card: ImageCard) -> torch.Tensor:
    """Weights (classes,) with which every class counts the same among the images of a split."""
    return balanced_weights(split.labels, len(card.classes)).to(device())
