"""The search loop: the mix and the weights take turns, epoch by epoch, and every epoch can be resumed from.

Per batch: the strategy moves the architecture and hands over the mix, then SGD moves the weights at that mix (DARTS
algorithm 1; MS-DARTS's smoothing happens inside the strategy).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.batches import Batch, BatchStream
from models.discretize import discretize, one_hot
from models.errors import Diverged
from models.evaluate import Tally, evaluate, recalibrated
from models.events import EpochEnd, Listener, Row, State, StepEnd, silent
from models.schedules import cosine
from models.strategies import Mix, Strategy, row_entropy
from models.tasks import BatchObjective, ImageTask


@dataclass(frozen=True)
class SearchConfig:
    """SGD on the weights of the supernet; defaults are the published ones."""

    channels: int = 16
    cells: int = 8
    epochs: int = 40
    learning_rate: float = 0.025
    learning_rate_end: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0


@dataclass(frozen=True)
class Loaders:
    """The data of a search: ``train`` moves the weights, ``architecture`` alpha (None: the same batches as the weights).

    ``valid()`` and ``calibration()`` are passes over un-augmented images: for scores, and for batch statistics.
    """

    train: BatchStream
    architecture: BatchStream | None
    valid: Callable[[], Iterable[Batch]]
    calibration: Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``alphas``: cell type -> (epochs, edges, operations), the architecture parameters after each epoch. ``summary``:
    validation accuracy of the supernet, of its discretized mix, and their difference, the discretization gap.
    """

    history: list[Row]
    alphas: dict[str, Tensor]
    weights: dict[str, Tensor]
    summary: dict[str, float]


@dataclass
class _Progress:
    """What a search has behind it, apart from the state of its parts."""

    history: list[Row] = field(default_factory=list)
    alphas: dict[str, list[Tensor]] = field(default_factory=dict)


def search(
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    config: SearchConfig,
    *,
    device: torch.device = torch.device("cpu"),
    on_event: Listener = silent,
    resume: State | None = None,
) -> SearchResult:
    """Runs or resumes a search. Raises Diverged when a loss is no longer finite."""
    supernet = task.supernet(channels=config.channels, cells=config.cells)
    supernet = supernet.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        supernet.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    progress = _Progress()
    if resume is not None:
        _load_state(resume, task, strategy, loaders, supernet, optimizer, progress)

    for epoch in range(len(progress.history), config.epochs):
        rate = cosine(config.learning_rate, config.learning_rate_end, epoch, config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        strategy.start_epoch(epoch)
        tally = Tally()
        for step in range(len(loaders.train)):
            _step(task, strategy, loaders, supernet, optimizer, config, tally)
            on_event(StepEnd(epoch + 1, config.epochs, step + 1, len(loaders.train)))
        row = _row(task, strategy, loaders, supernet, tally, epoch + 1, rate)
        progress.history.append(row)
        for group, alpha in strategy.alphas().items():
            progress.alphas.setdefault(group, []).append(alpha.cpu())
        on_event(
            EpochEnd(
                epoch + 1,
                config.epochs,
                row,
                lambda: _state(task, strategy, loaders, supernet, optimizer, progress),
            )
        )
    return SearchResult(
        progress.history,
        {group: torch.stack(rows) for group, rows in progress.alphas.items()},
        {name: tensor.cpu().contiguous() for name, tensor in supernet.state_dict().items()},
        discretization_gap(task, supernet, strategy.mix(), loaders),
    )


def _step(
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    supernet: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: SearchConfig,
    tally: Tally,
) -> None:
    x, labels = next(loaders.train)
    train = BatchObjective(task, supernet, x, labels)
    valid = train
    if loaders.architecture is not None and strategy.needs_valid():
        valid = BatchObjective(task, supernet, *next(loaders.architecture))
    params = dict(supernet.named_parameters())
    mix = strategy.step(params, train, valid)
    optimizer.zero_grad()
    output = train.output(params, mix)
    loss = task.loss(output, labels)
    loss.backward()
    nn.utils.clip_grad_norm_(supernet.parameters(), config.gradient_clip)
    optimizer.step()
    tally.add(loss, output, labels)


def _row(
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    supernet: nn.Module,
    tally: Tally,
    epoch: int,
    rate: float,
) -> Row:
    mix = detached(strategy.mix())
    train = tally.score()
    if not math.isfinite(train.loss):
        raise Diverged(f"the training loss of the supernet became {train.loss} in epoch {epoch}")
    valid = evaluate(supernet, lambda x: supernet(x, mix), loaders.valid())
    genotype = discretize(task.space, mix)
    return {
        "epoch": epoch,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "valid_loss": valid.loss,
        "valid_accuracy": valid.accuracy,
        "learning_rate": rate,
        **strategy.report(),
        **{f"entropy_{group}": row_entropy(rows) for group, rows in mix.items()},
        **{f"skip_connects_{group}": genotype.count("skip_connect", group) for group in mix},
    }


def discretization_gap(
    task: ImageTask, supernet: nn.Module, mix: Mix, loaders: Loaders
) -> dict[str, float]:
    """Validation accuracy of the supernet at the mix, at the discretized mix, and the difference.

    Same weights for both; for each the batch statistics are recalibrated on the calibration images first.
    """
    mix = detached(mix)
    chosen = one_hot(task.space, discretize(task.space, mix))
    discrete = {group: rows.to(mix[group]) for group, rows in chosen.items()}

    def accuracy(at: Mix) -> float:
        def logits(x: Tensor) -> Tensor:
            return supernet(x, at)

        with recalibrated(supernet, logits, loaders.calibration()):
            return evaluate(supernet, logits, loaders.valid()).accuracy

    continuous, discretized = accuracy(mix), accuracy(discrete)
    return {
        "supernet_accuracy": continuous,
        "discretized_accuracy": discretized,
        "discretization_gap": continuous - discretized,
    }


def detached(mix: Mix) -> dict[str, Tensor]:
    """The mix without gradients."""
    return {group: rows.detach() for group, rows in mix.items()}


def _streams(loaders: Loaders) -> dict[str, BatchStream]:
    streams = {"train": loaders.train, "architecture": loaders.architecture}
    return {name: stream for name, stream in streams.items() if stream is not None}


def _state(
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    supernet: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: _Progress,
) -> State:
    return {
        "supernet": supernet.state_dict(),
        "optimizer": optimizer.state_dict(),
        "strategy": strategy.state_dict(),
        "streams": {name: stream.state_dict() for name, stream in _streams(loaders).items()},
        "generators": {name: generator.get_state() for name, generator in task.generators.items()},
        "history": progress.history,
        "alphas": progress.alphas,
    }


def _load_state(
    state: State,
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    supernet: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: _Progress,
) -> None:
    supernet.load_state_dict(state["supernet"])
    optimizer.load_state_dict(state["optimizer"])
    strategy.load_state_dict(state["strategy"])
    for name, stream in _streams(loaders).items():
        stream.load_state_dict(state["streams"][name])
    for name, generator in task.generators.items():
        generator.set_state(state["generators"][name])
    progress.history, progress.alphas = state["history"], state["alphas"]
