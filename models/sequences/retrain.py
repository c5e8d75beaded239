"""Trains a found network from scratch and, side by side on the same batches, the networks it is compared with.

Each network has its own optimizer (AdamW, arXiv 1711.05101, with a rate that falls along half a cosine), its own clipped
gradients and its own best epoch by validation. Nothing that happens to one depends on another, so the found network
is the same with and without the others.

Texts come in chunks that continue each other. The state is carried from chunk to chunk, and gradients stop between them
(truncated backpropagation through time).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.training.ahead import Ahead, Stream
from models.training.denormals import without_denormals
from models.training.evaluation import Batch, Criterion, Tally, evaluate
from models.training.events import Listener, Row, State
from models.training.optimizers import AdamW
from models.training.precision import computing_in, in_float32
from models.training.schedules import cosine
from models.training.trained import Trained

FOUND = "network"  # the name of the found network's part of the weights


@dataclass(frozen=True)
class RetrainConfig:
    """The same for all networks."""

    epochs: int = 20
    learning_rate: float = 0.01
    learning_rate_end: float = 0.0
    weight_decay: float = 0.0
    gradient_clip: float = 1.0


@dataclass
class _Best:
    """The best epoch so far, by the validation measure."""

    epoch: int = 0
    value: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)


class _Arm:
    """One network with what its training needs. A network of text takes and returns a state."""

    def __init__(self, network: nn.Module, config: RetrainConfig):
        self.network = network
        self.optimizer = AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.best = _Best()
        self.state: Tensor | None = None
        self.tally = Tally()
        self.left_out = 0  # steps of this epoch whose gradient was not finite

    def state_dict(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": [self.best.epoch, self.best.value, self.best.weights],
            "state": self.state,
            "left_out": self.left_out,
        }

    def load_state_dict(self, saved: State) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.best = _Best(*saved["best"])
        self.state = saved["state"]
        self.left_out = saved["left_out"]


class Retraining:
    """The training of networks, which are on their device, as a program of the loop.

    ``networks`` has the found one as "network". ``criterion`` is what is minimized, and ``scoring`` what is measured on
    the validation cases; lower values of ``metric``, one of its measures, are better. With ``carries``, networks are
    called as language models, and the input of a batch says whether it begins a text (models/sequences/streams.py).
    The passes of a step compute in ``precision``; validation is float32.

    A step whose gradient is not finite is left out. The history has the found network's losses and measures, how many
    steps were left out, and the others' losses and measures as ``train_loss_NAME``,
    ``valid_METRIC_NAME``. ``Trained.weights`` are those of each network's best epoch, as ``NAME.*``.
    """

    remedy = "lower retrain.learning_rate"

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        stream: Stream,
        valid: Callable[[], Iterable[Batch]],
        config: RetrainConfig,
        criterion: Criterion,
        metric: str,
        *,
        scoring: Criterion | None = None,
        carries: bool = False,
        precision: torch.dtype = torch.float32,
    ):
        assert FOUND in networks
        self.arms = {name: _Arm(network, config) for name, network in networks.items()}
        self.stream, self.valid, self.config = Ahead(stream), valid, config
        self.criterion, self.scoring, self.metric = criterion, scoring or criterion, metric
        self.carries, self.precision = carries, precision

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def inputs(self) -> Collection[Ahead]:
        return [self.stream]

    def start_epoch(self, epoch: int) -> int:
        self.rate = cosine(self.config.learning_rate, self.config.learning_rate_end, epoch, self.epochs)
        for arm in self.arms.values():
            for group in arm.optimizer.param_groups:
                group["lr"] = self.rate
            arm.tally, arm.left_out = Tally(), 0
            arm.network.train()
        return len(self.stream)

    def step(self) -> None:
        x, target = next(self.stream)
        with without_denormals():
            for arm in self.arms.values():
                self._step(arm, x, target)

    def _step(self, arm: _Arm, x: Any, target: Tensor) -> None:
        arm.optimizer.zero_grad()
        with computing_in(self.precision, target.device):
            output, state = called(arm.network, x, arm.state) if self.carries else (arm.network(x), None)
        output = in_float32(output)
        arm.state = None if state is None else in_float32(state).detach()
        loss = self.criterion.loss(output, target)
        loss.backward()
        # Over many steps of a cell that multiplies, a gradient may overflow although the loss is finite. It says nothing.
        if nn.utils.clip_grad_norm_(arm.network.parameters(), self.config.gradient_clip).isfinite():
            arm.optimizer.step()
        else:
            arm.left_out += 1
        arm.tally.add(loss, self.criterion.measures(output, target), len(target))

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        row: dict[str, int | float | None] = {}
        for name, arm in self.arms.items():
            output = Carrying(arm.network) if self.carries else arm.network
            valid = evaluate(arm.network, output, self.valid(), self.scoring)
            value = valid[self.metric]
            if arm.best.epoch == 0 or value < arm.best.value:
                kept = {
                    key: tensor.detach().cpu().clone() for key, tensor in arm.network.state_dict().items()
                }
                arm.best = _Best(len(history) + 1, value, kept)
            columns = {
                **arm.tally.means("train_"),
                **{f"valid_{measure}": number for measure, number in valid.items()},
            }
            columns["steps_left_out"] = arm.left_out
            if name != FOUND:
                wanted = ("train_loss", f"valid_{self.metric}")
                columns = {f"{column}_{name}": columns[column] for column in wanted}
            row |= columns
        return {**row, "learning_rate": self.rate}

    def stopped(self, history: Sequence[Row]) -> bool:
        return False

    def state(self) -> State:
        return {
            "arms": {name: arm.state_dict() for name, arm in self.arms.items()},
            "stream": self.stream.state_dict(),
        }

    def restore(self, state: State) -> None:
        for name, arm in self.arms.items():
            arm.load_state_dict(state["arms"][name])
        self.stream.load_state_dict(state["stream"])

    def result(self, history: Sequence[Row], on_event: Listener) -> Trained:
        weights = {
            f"{name}.{key}": tensor
            for name, arm in self.arms.items()
            for key, tensor in arm.best.weights.items()
        }
        for arm in self.arms.values():
            arm.network.load_state_dict(arm.best.weights)
        return Trained(history, weights, self.arms[FOUND].best.epoch)


def called(network: nn.Module, x: tuple[Tensor, bool], state: Tensor | None) -> tuple[Tensor, Tensor]:
    """A language model's logits and its next state, from ``state`` on unless the batch begins a text."""
    tokens, first = x
    return network(tokens, None if first else state)


class Carrying:
    """A language model as a function of batches that continue each other, whose state it keeps."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.state: Tensor | None = None

    def __call__(self, x: tuple[Tensor, bool]) -> Tensor:
        logits, self.state = called(self.network, x, self.state)
        return logits
