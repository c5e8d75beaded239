"""The search loop: the mix and the weights take turns, epoch by epoch, and every epoch can be resumed from.

Per batch: the strategy moves the architecture and hands over the mix, then SGD moves the weights at that mix (DARTS
algorithm 1; MS-DARTS's smoothing happens inside the strategy). What makes a search fall apart is measured: see ``SearchResult``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.errors import Diverged, InvalidInput
from models.images.batches import Batch, BatchStream
from models.images.benchmark import Benchmark
from models.images.evaluate import Score, Tally, evaluate, recalibrated
from models.images.task import BatchObjective, ImageTask
from models.search.curvature import Eigenvalue, dominant_eigenvalue
from models.search.discretize import discretize, one_hot
from models.search.early_stopping import EarlyStopping
from models.search.genotype import Genotype
from models.search.gradients import descent_of
from models.search.objective import Mix
from models.search.strategies import Strategy, detached, row_entropy
from models.training.distributed import agreed, alone
from models.training.events import EpochEnd, Listener, Notice, Row, State, StepEnd, silent
from models.training.schedules import cosine


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
    curvature_images: int = 64  # validation images the Hessian eigenvalue is measured on; 0: it is not
    compile: bool = (
        False  # compile the perturbed passes: minutes at the start; no faster on a CPU, not measured on a GPU
    )


@dataclass(frozen=True)
class Loaders:
    """The data of a search: ``train`` moves the weights, ``architecture`` alpha (None: the same batches as the weights).

    ``valid()`` and ``calibration()`` are passes over un-augmented images: for scores, and for batch statistics. The curvature is
    measured on the first batch of ``valid()``, so its images should not be sorted by class.
    """

    train: BatchStream
    architecture: BatchStream | None
    valid: Callable[[], Iterable[Batch]]
    calibration: Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``epoch``, counted from 1, is the one whose architecture parameters are the result: the last, or the one that early stopping
    went back to. ``alphas``: cell type -> (epochs, edges, operations), the architecture parameters after each epoch.
    ``history``, a row an epoch, has per cell type the mean entropy of the mix's rows and the skip connections of the genotype, the
    edges in which the genotype differs from that of the epoch before, and what the strategy reports. ``summary``: validation
    accuracy of the supernet, of its discretized mix, their difference (the discretization gap), and the dominant eigenvalue
    of the Hessian of the validation loss with respect to alpha with its residual, all at the weights of the last epoch.
    """

    history: list[Row]
    alphas: dict[str, Tensor]
    weights: dict[str, Tensor]
    summary: dict[str, float]
    genotype: Genotype
    epoch: int


@dataclass
class _Run:
    """The parts of a search, and what it has behind it."""

    task: ImageTask
    strategy: Strategy
    loaders: Loaders
    config: SearchConfig
    supernet: nn.Module
    optimizer: torch.optim.SGD
    history: list[Row] = field(default_factory=list)
    alphas: dict[str, list[Tensor]] = field(default_factory=dict)


def search(
    task: ImageTask,
    strategy: Strategy,
    loaders: Loaders,
    config: SearchConfig,
    *,
    early_stopping: EarlyStopping | None = None,
    benchmark: Benchmark | None = None,
    device: torch.device = torch.device("cpu"),
    on_event: Listener = silent,
    resume: State | None = None,
) -> SearchResult:
    """Runs or resumes a search. Raises Diverged when a loss is no longer finite.

    With a ``benchmark`` the history has the tabulated accuracy and rank of each epoch's genotype.
    """
    measured = early_stopping is not None and early_stopping.needs_eigenvalue
    if measured and config.curvature_images == 0:
        raise InvalidInput("early stopping on the eigenvalue needs search.curvature_images of 1 or more")
    supernet = task.supernet(channels=config.channels, cells=config.cells)
    supernet = supernet.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.compile:
        supernet.compile_probes()
    optimizer = torch.optim.SGD(
        supernet.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    run = _Run(task, strategy, loaders, config, supernet, optimizer)
    if resume is not None:
        _load_state(run, resume)

    chosen = early_stopping(run.history) if early_stopping else None
    while chosen is None and len(run.history) < config.epochs:
        epoch = len(run.history)
        rate = cosine(config.learning_rate, config.learning_rate_end, epoch, config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        strategy.start_epoch(epoch)
        tally = Tally()
        for step in range(len(loaders.train)):
            _step(run, tally)
            on_event(StepEnd(epoch + 1, config.epochs, step + 1, len(loaders.train)))
        row = _row(run, tally.score(), rate, benchmark, on_event, eigenvalue=measured)
        for message in strategy.notices():
            on_event(Notice(message))
        run.history.append(row)
        for group, alpha in strategy.alphas().items():
            run.alphas.setdefault(group, []).append(alpha.cpu())
        on_event(EpochEnd(epoch + 1, config.epochs, row, lambda: _state(run)))
        chosen = early_stopping(run.history) if early_stopping else None
    with alone():
        return _result(run, len(run.history) if chosen is None else chosen, on_event)


def _step(run: _Run, tally: Tally) -> None:
    task, supernet, loaders = run.task, run.supernet, run.loaders
    x, labels = next(loaders.train)
    train = BatchObjective(task, supernet, x, labels)
    valid = train
    if loaders.architecture is not None and run.strategy.needs_valid():
        valid = BatchObjective(task, supernet, *next(loaders.architecture))
    params = dict(supernet.named_parameters())
    mix = run.strategy.step(params, train, valid, descent_of(run.optimizer, params))
    run.optimizer.zero_grad()
    output = train.output(params, mix)
    loss = task.loss(output, labels)
    loss.backward()
    nn.utils.clip_grad_norm_(supernet.parameters(), run.config.gradient_clip)
    run.optimizer.step()
    tally.add(loss, output, labels)


def _row(
    run: _Run,
    train: Score,
    rate: float,
    benchmark: Benchmark | None,
    on_event: Listener,
    *,
    eigenvalue: bool,
) -> Row:
    task, supernet, epoch = run.task, run.supernet, len(run.history) + 1
    if not math.isfinite(train.loss):
        raise Diverged(
            f"the training loss of the supernet became {train.loss} in epoch {epoch}; lower"
            " search.weights.learning_rate"
        )
    mix = detached(run.strategy.mix())
    valid = evaluate(supernet, lambda x: supernet(x, mix), run.loaders.valid())
    genotype = discretize(task.space, mix)
    before = discretize(task.space, _mix_after(run, epoch - 1)) if run.history else None
    entropy = {group: row_entropy(rows) for group, rows in mix.items()}
    skip_connects = {group: genotype.count("skip_connect", group) for group in mix}
    row: dict[str, int | float | None] = {
        "epoch": epoch,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "valid_loss": valid.loss,
        "valid_accuracy": valid.accuracy,
        "learning_rate": rate,
        **run.strategy.report(),
        "entropy": sum(entropy[group] * len(rows) for group, rows in mix.items())
        / sum(map(len, mix.values())),
        **{f"entropy_{group}": value for group, value in entropy.items()},
        "skip_connects": sum(skip_connects.values()),
        **{f"skip_connects_{group}": count for group, count in skip_connects.items()},
        "genotype_changes": None if before is None else genotype.changes(before),
    }
    if eigenvalue:
        with alone():
            found = _hessian_eigenvalue(run, run.strategy.alphas(), on_event)
        row["hessian_eigenvalue"] = agreed(found.value)  # early stopping reads it
    if benchmark is not None:
        standing = benchmark.standing(genotype)
        row |= {"tabulated_accuracy": standing.accuracy, "tabulated_rank": standing.rank}
    return row


def _result(run: _Run, epoch: int, on_event: Listener) -> SearchResult:
    mix = _mix_after(run, epoch)
    summary = discretization_gap(run.task, run.supernet, mix, run.loaders)
    if run.config.curvature_images > 0:
        at = {group: rows[epoch - 1] for group, rows in run.alphas.items()}
        found = _hessian_eigenvalue(run, at, on_event)
        summary |= {"hessian_eigenvalue": found.value, "hessian_residual": found.residual}
    return SearchResult(
        run.history,
        {group: torch.stack(rows) for group, rows in run.alphas.items()},
        {name: tensor.cpu().contiguous() for name, tensor in run.supernet.state_dict().items()},
        summary,
        discretize(run.task.space, mix),
        epoch,
    )


def _mix_after(run: _Run, epoch: int) -> dict[str, Tensor]:
    """The mix after an epoch, counted from 1."""
    device = next(run.supernet.parameters()).device
    return detached(
        run.strategy.mix({group: rows[epoch - 1].to(device) for group, rows in run.alphas.items()})
    )


def _hessian_eigenvalue(run: _Run, alphas: Mapping[str, Tensor], on_event: Listener) -> Eigenvalue:
    """The dominant Hessian eigenvalue of the validation loss, on the first images of a pass.

    In evaluation mode, so that what is differentiated is the loss that the history shows, and nothing random is in it.
    """
    x, labels = next(iter(run.loaders.valid()))
    images = run.config.curvature_images
    objective = BatchObjective(run.task, run.supernet, x[:images], labels[:images])
    params = {name: weight.detach() for name, weight in run.supernet.named_parameters()}
    at = {group: rows.to(x.device) for group, rows in alphas.items()}

    def loss(alphas: Mapping[str, Tensor]) -> Tensor:
        return objective.evaluated(params, run.strategy.mix(alphas))

    return dominant_eigenvalue(loss, at, on_event=on_event)


def discretization_gap(task: ImageTask, supernet: nn.Module, mix: Mix, loaders: Loaders) -> dict[str, float]:
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


def _streams(loaders: Loaders) -> dict[str, BatchStream]:
    streams = {"train": loaders.train, "architecture": loaders.architecture}
    return {name: stream for name, stream in streams.items() if stream is not None}


def _state(run: _Run) -> State:
    return {
        "supernet": run.supernet.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "strategy": run.strategy.state_dict(),
        "streams": {name: stream.state_dict() for name, stream in _streams(run.loaders).items()},
        "generators": {name: generator.get_state() for name, generator in run.task.generators.items()},
        "history": run.history,
        "alphas": run.alphas,
    }


def _load_state(run: _Run, state: State) -> None:
    run.supernet.load_state_dict(state["supernet"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.strategy.load_state_dict(state["strategy"])
    for name, stream in _streams(run.loaders).items():
        stream.load_state_dict(state["streams"][name])
    for name, generator in run.task.generators.items():
        generator.set_state(state["generators"][name])
    run.history, run.alphas = state["history"], state["alphas"]
