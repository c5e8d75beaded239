"""A search as a program of the training loop: the architecture and the weights take turns on every batch.

On each batch, the strategy moves the architecture and returns a mix, then an optimizer moves the weights at
that mix (DARTS, algorithm 1; the smoothing of MS-DARTS is part of the strategy). Signs of a search that falls
apart are measured; ``Found`` lists them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.errors import InvalidInput
from models.search.curvature import Eigenvalue, dominant_eigenvalue
from models.search.discretize import discretize
from models.search.early_stopping import EarlyStopping
from models.search.freezing import GradientAgreement
from models.search.genotype import Genotype
from models.search.gradients import Step, descent_of
from models.search.growth import Growth
from models.search.landscape import Landscape, landscape
from models.search.objective import BatchObjective, Domain, Mix, Params, Pass
from models.search.signs import discretization_gap, stability
from models.search.spaces import restricted, shapes_of
from models.search.strategies import Strategy, detached, indecision, largest_weight
from models.training.ahead import Ahead, Stream
from models.training.denormals import without_denormals
from models.training.distributed import agreed, alone
from models.training.evaluation import Batch, Criterion, Tally, evaluate
from models.training.events import Listener, Notice, Row, State
from models.training.optimizers import SGD, Adam
from models.training.schedules import cosine


@dataclass(frozen=True)
class SearchConfig:
    """How the weights of the supernet train; defaults are the published ones.

    ``optimizer`` is SGD with momentum, or Adam, where the momentum is its first beta.
    """

    epochs: int = 40
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.025
    learning_rate_end: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    curvature_cases: int = 64  # validation cases for eigenvalue and landscape; 0: neither is measured
    landscape_points: int = 0  # per side of the landscape; 0: it is not measured


@dataclass(frozen=True)
class Loaders:
    """The data of a search: batches of ``train`` move the weights, those of ``architecture`` move alpha.

    Where ``architecture`` is None, alpha moves on the batches of the weights. ``valid()`` and
    ``calibration()`` are passes over cases without augmentation: the first gives scores, the second is what
    ``Domain.recalibrated`` adapts to. Curvature and landscape are measured on the first batch of ``valid()``,
    so its cases should not be sorted.
    """

    train: Stream
    architecture: Stream | None
    valid: Callable[[], Iterable[Batch]]
    calibration: Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class Found:
    """What a search found.

    history   one row per epoch: losses and measures; the mean entropy of the mix's rows and the skip
              connections of the genotype, over all groups and per group; the mean over the rows of their
              largest weight; how many edges of the genotype the epoch before did not have; and what the
              strategy and the freezing report
    alphas    the architecture parameters after each epoch, group -> (edges, operations); their shapes may
              differ from epoch to epoch
    weights   those of the supernet after the last epoch
    summary   at these weights, on the validation cases: the metric of the supernet at its mix and at the
              discretized mix, the difference of the two (the discretization gap), the dominant eigenvalue of
              the Hessian of the loss with respect to alpha, with its residual; and of the mix, the mean of the
              rows' largest weight, and ``indecision``
    landscape the validation loss around the architecture parameters of ``epoch``, if it was measured
    epoch     counted from 1, the epoch whose architecture parameters are the result: the last one, or the one
              that early stopping returned to
    genotype  that of ``epoch``
    """

    history: Sequence[Row]
    alphas: Sequence[Mapping[str, Tensor]]
    weights: dict[str, Tensor]
    summary: dict[str, float]
    genotype: Genotype
    epoch: int
    landscape: Landscape | None = None


class Search:
    """The search of a domain with a strategy. The supernet is already on its device.

    The passes of a step compute in ``precision``; everything that is measured between epochs is float32.
    ``freezing`` keeps weights of the supernet that begin to overfit. It takes one more pass per step.
    ``columns`` adds to each row of the history what is known about the genotype of that epoch, such as its
    rank in a table. ``scoring`` is what is measured on the validation cases after each epoch, if more than
    what the domain measures. With ``growth``, the space of the domain is the largest one, and the supernet and the strategy
    begin with the first edges and operations of it. ``flush_denormals`` makes the steps of a network faster whose gradients
    vanish (models/training/denormals.py).
    """

    remedy = "lower search.weights.learning_rate"

    def __init__(
        self,
        domain: Domain,
        supernet: nn.Module,
        strategy: Strategy,
        loaders: Loaders,
        config: SearchConfig,
        *,
        early_stopping: EarlyStopping | None = None,
        freezing: GradientAgreement | None = None,
        precision: torch.dtype = torch.float32,
        columns: Callable[[Genotype], Mapping[str, float]] = lambda _: {},
        scoring: Criterion | None = None,
        growth: Growth | None = None,
        flush_denormals: bool = False,
    ):
        self.measures_eigenvalue = early_stopping is not None and early_stopping.needs_eigenvalue
        if self.measures_eigenvalue and config.curvature_cases == 0:
            raise InvalidInput("early stopping on the eigenvalue needs search.curvature_images of 1 or more")
        if freezing is not None and loaders.architecture is None:
            raise InvalidInput(
                "freezing operations needs validation batches, which a single-level search has not"
            )
        if growth is not None:
            if freezing is not None:
                raise InvalidInput(
                    "freezing operations cannot follow a search that grows; choose one of the two"
                )
            growth.config.check(config.epochs, domain.space)
        self.domain, self.supernet, self.strategy, self.growth = domain, supernet, strategy, growth
        streams = {"train": loaders.train, "architecture": loaders.architecture}
        self.streams: Mapping[str, Ahead] = {
            name: Ahead(stream) for name, stream in streams.items() if stream is not None
        }
        self.loaders, self.config = loaders, config
        self.early_stopping, self.freezing = early_stopping, freezing
        self.precision, self.columns = precision, columns
        self.scoring, self.flush_denormals = scoring or domain, flush_denormals
        self.optimizer = _optimizer(supernet, config)
        self.alphas: list[dict[str, Tensor]] = []
        self.tally = Tally()

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def inputs(self) -> Collection[Ahead]:
        return list(self.streams.values())

    def start_epoch(self, epoch: int) -> int:
        self.rate = cosine(self.config.learning_rate, self.config.learning_rate_end, epoch, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.strategy.start_epoch(epoch)
        if self.growth is not None:
            self.growth.start_epoch(epoch, self.strategy, self.optimizer)
        self.tally = Tally()
        return len(self.streams["train"])

    def step(self) -> None:
        with without_denormals() if self.flush_denormals else contextlib.nullcontext():
            self._step()

    def _step(self) -> None:
        x, target = next(self.streams["train"])
        train = self._objective(x, target)
        valid = train
        if "architecture" in self.streams and self.strategy.needs_valid():
            valid = self._objective(*next(self.streams["architecture"]))
        params = dict(self.supernet.named_parameters())
        update = self.strategy.step(Step(params, train, valid, lambda: descent_of(self.optimizer, params)))
        self.optimizer.zero_grad()
        weights = update.weights or self._weights_pass(train, params, update.mix)
        for name, parameter in params.items():
            parameter.grad = weights.gradients.get(name, parameter.grad)
        if self.freezing is not None and valid is not train:
            gradients = {name: weight.grad for name, weight in params.items() if weight.grad is not None}
            self.freezing.observe(gradients, valid.joint_pass(params, update.mix)[0].gradients)
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.gradient_clip)
        with self.freezing.holding(params) if self.freezing else contextlib.nullcontext():
            self.optimizer.step()
        self.tally.add(weights.loss, self.domain.measures(weights.output, target), len(target))

    def _objective(self, x: Any, target: Tensor) -> BatchObjective:
        return BatchObjective(self.domain, self.supernet, x, target, self.precision)

    def _weights_pass(self, train: BatchObjective, params: Mapping[str, Tensor], mix: Mix) -> Pass:
        """The weights' pass at a mix. It leaves the gradients in the parameters, not in the ``Pass``."""
        output = train.output(params, mix)
        loss = self.domain.loss(output, train.target)
        loss.backward()
        return Pass(loss, output, {})

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        mix = detached(self.strategy.mix())
        genotype = self._genotype(mix)
        before = self._genotype(self._mix_after(len(history))) if history else None
        valid = evaluate(self.supernet, lambda x: self.supernet(x, mix), self.loaders.valid(), self.scoring)
        row: dict[str, int | float | None] = {
            **self.tally.means("train_"),
            **{f"valid_{name}": value for name, value in valid.items()},
            "learning_rate": self.rate,
            **self.strategy.report(),
            **(self.freezing.report() if self.freezing else {}),
            **stability(mix, genotype, before),
            **(self.growth.report(self.strategy.live()) if self.growth else {}),
        }
        if self.measures_eigenvalue:
            with alone():
                found = self._hessian_eigenvalue(self.strategy.alphas(), on_event)
            row["hessian_eigenvalue"] = agreed(found.value)  # early stopping reads it
        row |= self.columns(genotype)
        if self.growth is not None:
            self.growth.end_epoch(valid["loss"])
        for message in (*(self.growth.notices() if self.growth else ()), *self.strategy.notices()):
            on_event(Notice(message))
        self.alphas.append({group: alpha.cpu() for group, alpha in self.strategy.alphas().items()})
        return row

    def stopped(self, history: Sequence[Row]) -> bool:
        return self._chosen(history) is not None

    def _chosen(self, history: Sequence[Row]) -> int | None:
        """The epoch that early stopping returns to, if it stops: one with the last structure."""
        if self.early_stopping is None:
            return None
        since = self.growth.since(history) if self.growth else history
        chosen = self.early_stopping(since) if since else None
        return None if chosen is None else len(history) - len(since) + chosen

    def state(self) -> State:
        return {
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "strategy": self.strategy.state_dict(),
            "freezing": self.freezing.state_dict() if self.freezing else {},
            "growth": self.growth.state_dict() if self.growth else {},
            "streams": {name: stream.state_dict() for name, stream in self.streams.items()},
            "generators": {name: source.get_state() for name, source in self.domain.generators.items()},
            "alphas": self.alphas,
        }

    def restore(self, state: State) -> None:
        if self.growth is not None:
            self.growth.restore(state["growth"], self.optimizer)
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.strategy.load_state_dict(state["strategy"])
        if self.freezing is not None:
            self.freezing.load_state_dict(state["freezing"])
        for name, stream in self.streams.items():
            stream.load_state_dict(state["streams"][name])
        for name, source in self.domain.generators.items():
            source.set_state(state["generators"][name])
        self.alphas = state["alphas"]

    def result(self, history: Sequence[Row], on_event: Listener) -> Found:
        chosen = self._chosen(history)
        epoch = len(history) if chosen is None else chosen
        mix = self._mix_after(epoch)
        summary = discretization_gap(self.domain, self.supernet, mix, self.loaders)
        summary |= {"largest_weight": largest_weight(mix), "indecision": indecision(mix)}
        around = None
        if self.config.curvature_cases > 0:
            found = self._hessian_eigenvalue(self.alphas[epoch - 1], on_event)
            summary |= {"hessian_eigenvalue": found.value, "hessian_residual": found.residual}
            if self.config.landscape_points > 0:
                around = self._landscape(self.alphas[epoch - 1], on_event)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.supernet.state_dict().items()}
        return Found(history, self.alphas, weights, summary, self._genotype(mix), epoch, around)

    def _genotype(self, mix: Mix) -> Genotype:
        """The genotype of a mix, also of one from an epoch with a smaller structure."""
        return discretize(restricted(self.domain.space, shapes_of(mix)), mix)

    def _mix_after(self, epoch: int) -> dict[str, Tensor]:
        """The mix after an epoch, counted from 1."""
        device = next(self.supernet.parameters()).device
        alphas = {group: rows.to(device) for group, rows in self.alphas[epoch - 1].items()}
        return detached(self.strategy.mix(alphas))

    def _hessian_eigenvalue(self, alphas: Mapping[str, Tensor], on_event: Listener) -> Eigenvalue:
        """The dominant eigenvalue of the Hessian of the validation loss, on the first cases of a pass."""
        objective, params = self._held_out()
        at = {group: rows.to(objective.target.device) for group, rows in alphas.items()}

        def loss(alphas: Mapping[str, Tensor]) -> Tensor:
            return objective.evaluated(params, self.strategy.mix(alphas))

        return dominant_eigenvalue(loss, at, on_event=on_event)

    def _landscape(self, alphas: Mapping[str, Tensor], on_event: Listener) -> Landscape:
        """The landscape of the same loss, one row of the grid per pass."""
        objective, params = self._held_out()
        at = {group: rows.to(objective.target.device) for group, rows in alphas.items()}

        def losses(points: Sequence[Mapping[str, Tensor]]) -> Tensor:
            return objective.probe(params, [self.strategy.mix(alphas) for alphas in points])

        return landscape(losses, at, points=self.config.landscape_points, on_event=on_event)

    def _held_out(self) -> tuple[BatchObjective, Params]:
        """The first validation cases of a pass, and the weights.

        Losses are taken in evaluation mode, as in the history, so that nothing about them is random.
        """
        x, target = next(iter(self.loaders.valid()))
        cases = self.config.curvature_cases
        objective = BatchObjective(self.domain, self.supernet, x[:cases], target[:cases])
        return objective, {name: weight.detach() for name, weight in self.supernet.named_parameters()}


def _optimizer(supernet: nn.Module, config: SearchConfig) -> SGD | Adam:
    rate, decay, momentum = config.learning_rate, config.weight_decay, config.momentum
    if config.optimizer == "adam":
        return Adam(supernet.parameters(), lr=rate, betas=(momentum, 0.999), weight_decay=decay)
    return SGD(supernet.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
