"""Makes the strategy and the early stopping of a search from the names and settings in params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from models.search.early_stopping import EarlyStopping, EigenvalueRise, SkipConnections
from models.search.gradients import Joint, Pathwise, Relaxation, unrolled
from models.search.penalties import Discretization, Measure, Penalty, Rising, beta, entropy
from models.search.smoothing import MeanShift, MeanShiftConfig, Perturbation, PerturbationConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating, sigmoid, softmax
from models.training.schedules import geometric
from models.training.seeds import generator
from stages.search_params import SupernetSearchParams

RELAXATIONS: Mapping[str, Relaxation] = {"softmax": softmax, "sigmoid": sigmoid}

# Name -> the measure on a space, and its weight if penalty_weight is auto. The weight of beta is the published one.
PENALTIES: Mapping[str, Callable[[SearchSpace], tuple[Measure, float]]] = {
    "beta": lambda _: (beta, 50.0),
    "entropy": lambda _: (entropy, 3.0),
    "discretization": lambda space: (Discretization(space), 30.0),
}


def strategy_of(
    config: SupernetSearchParams,
    space: SearchSpace,
    device: torch.device,
    penalties: Sequence[Penalty] = (),
    *,
    largest: SearchSpace | None = None,
) -> Alternating:
    """The strategy that the settings name, with newly drawn architecture parameters and ``penalties`` besides its own.

    ``space`` is that of the start and ``largest`` the one that the search grows to, if it grows.
    """
    own = _penalties(config, largest or space)
    return _STRATEGIES[config.strategy](config, space, device, [*own, *penalties])


def needs_architecture_batches(config: SupernetSearchParams) -> bool:
    """Whether alpha is trained on its own batches instead of those of the weights."""
    return config.strategy != "single-level"


def early_stopping_of(config: SupernetSearchParams, watched_group: str) -> EarlyStopping | None:
    """The early stopping that the settings name. Skip connections are counted in the cells of ``watched_group``."""
    rule, warmup = config.early_stopping, config.alpha.warmup_epochs
    match rule.watch:
        case "eigenvalue":
            return EigenvalueRise(rule.window, rule.threshold, warmup)
        case "skip_connections":
            return SkipConnections(rule.limit, watched_group, warmup)
        case "none":
            return None


def _alternating(
    config: SupernetSearchParams,
    space: SearchSpace,
    device: torch.device,
    penalties: Sequence[Penalty],
    **arguments,
) -> Alternating:
    alpha = AlphaConfig(**config.alpha.model_dump(exclude={"temperature_end"}))
    return Alternating(
        space,
        alpha,
        generator(config.seed, "alpha"),
        device=device,
        penalties=penalties,
        temperature=partial(geometric, 1.0, config.alpha.temperature_end, epochs=config.epochs),
        **arguments,
    )


def _penalties(config: SupernetSearchParams, space: SearchSpace) -> Sequence[Penalty]:
    if config.penalty == "none":
        return ()
    measure, weight = PENALTIES[config.penalty](space)
    weight = weight if config.penalty_weight == "auto" else config.penalty_weight
    return [Rising(measure, weight, config.epochs, int(config.penalty_start * config.epochs))]


def _perturbation(config: SupernetSearchParams, steps: int) -> Perturbation:
    settings = PerturbationConfig(config.perturbation.radius_start, config.perturbation.radius_end, steps)
    return Perturbation(settings, config.epochs, generator(config.seed, "smoothing"))


def _mean_shift(config: SupernetSearchParams) -> MeanShift:
    probed = config.mean_shift.probe_images or config.batch_size
    settings = MeanShiftConfig(
        **config.mean_shift.model_dump(exclude={"probe_images"}), probe_every=config.batch_size // probed
    )
    return MeanShift(settings, config.epochs, generator(config.seed, "smoothing"))


_STRATEGIES: Mapping[
    str, Callable[[SupernetSearchParams, SearchSpace, torch.device, Sequence[Penalty]], Alternating]
] = {
    "darts": _alternating,
    "darts-2nd": lambda config, *rest: _alternating(config, *rest, estimator=Pathwise(unrolled)),
    "sdarts-rs": lambda config, *rest: _alternating(config, *rest, smoothing=_perturbation(config, 0)),
    "sdarts-adv": lambda config, *rest: _alternating(
        config, *rest, smoothing=_perturbation(config, config.perturbation.steps)
    ),
    "ms-darts": lambda config, *rest: _alternating(config, *rest, smoothing=_mean_shift(config)),
    "single-level": lambda config, *rest: _alternating(
        config, *rest, estimator=Joint(), relaxation=RELAXATIONS[config.relaxation()]
    ),
}
