"""Trains a found network from scratch as in DARTS, section 3.2: drop path, auxiliary head, cosine rate.

Differs from the published code in that the weights of the best *validation* accuracy are kept: the test set
plays no part. What later recipes add is off unless it is asked for: warm-up, Nesterov momentum, averaged
weights and mixed images (models/images/recipes.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.batch_statistics import recalibrated
from models.images.batches import Batch
from models.images.builders import FoundNetwork
from models.images.mixing import MixedLabels, Mixing
from models.images.task import right_answers
from models.training.ahead import Ahead, Stream
from models.training.averaging import MovingAverage
from models.training.distributed import alone, full_batch_size, own_part, parallel
from models.training.evaluation import Criterion, Tally, evaluate
from models.training.events import Listener, Row, State
from models.training.optimizers import SGD
from models.training.precision import computing_in, in_float32
from models.training.schedules import warmed_up
from models.training.trained import Trained


@dataclass(frozen=True)
class RetrainConfig:
    """SGD with a learning rate that falls to 0 along a cosine; defaults are the published ones."""

    epochs: int = 600
    learning_rate: float = 0.025
    warmup_epochs: int = 0  # before, in which the rate rises
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    drop_path: float = 0.2  # probability in the last epoch; rises linearly from 0
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.4
    ema_decay: float = (
        0.0  # of the averaged weights, which are then validated and kept; 0: the last weights are
    )


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of logits (B, classes) and labels (B,), and the number of right answers.

    With ``class_weights`` (classes,), the loss is the mean over the images of their cross-entropy, with
    label smoothing if any, times the weight of their class. PyTorch's own weighted mean divides by the sum
    of the weights in the batch instead, so a batch without images of a rare class would count as much as one
    with many.

    Where labels are mixed, loss and right answers are those of both labels, weighted by their shares. With
    weights of the classes, each of the two has its own.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def loss(self, output: Tensor, target: Tensor | MixedLabels) -> Tensor:
        if isinstance(target, MixedLabels):
            return target.mean(lambda labels: self._losses(output, labels)).mean()
        if self.class_weights is None:
            return F.cross_entropy(output, target, label_smoothing=self.label_smoothing)
        return self._losses(output, target).mean()

    def measures(self, output: Tensor, target: Tensor | MixedLabels) -> dict[str, Tensor]:
        if isinstance(target, MixedLabels):
            answers = output.detach().argmax(dim=1)
            return {"accuracy": target.mean(lambda labels: (answers == labels).double()).sum()}
        return {"accuracy": right_answers(output, target)}

    def _losses(self, output: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image (B,)."""
        losses_B = F.cross_entropy(output, labels, label_smoothing=self.label_smoothing, reduction="none")
        return losses_B if self.class_weights is None else self.class_weights[labels] * losses_B


@dataclass
class _Best:
    """The best epoch so far, by validation accuracy."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Retraining:
    """The training of a found network, which is already on its device, as a program of the loop.

    The result is the first epoch of the highest validation accuracy. When the training has ended, the
    network holds the weights of that epoch. The passes of a step compute in ``precision``; validation is
    float32. ``class_weights`` (classes,), on the network's device, are those of the loss. ``scoring`` is
    what is measured on the validation images. ``mixing``, if any, mixes each batch. With ``ema_decay``, the
    averaged weights are what is validated and kept, with batch statistics measured on the images of
    ``calibration``.
    """

    remedy = "lower retrain.learning_rate"

    def __init__(
        self,
        network: FoundNetwork,
        stream: Stream,
        valid: Callable[[], Iterable[Batch]],
        config: RetrainConfig,
        drop_path_generator: torch.Generator,
        *,
        class_weights: Tensor | None = None,
        scoring: Criterion = Classification(),
        precision: torch.dtype = torch.float32,
        mixing: Mixing | None = None,
        calibration: Callable[[], Iterable[Batch]] | None = None,
    ):
        self.network, self.valid, self.config = network, valid, config
        self.stream, self.mixing, self.calibration = Ahead(stream), mixing, calibration
        self.drop_path_generator, self.precision = drop_path_generator, precision
        self.criterion, self.scoring = Classification(config.label_smoothing, class_weights), scoring
        self.optimizer = SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
        self.average = MovingAverage(network, config.ema_decay) if config.ema_decay else None
        self.forward = parallel(network)
        self.best = _Best()
        self.tally = Tally()

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def inputs(self) -> Collection[Ahead]:
        return [self.stream]

    def start_epoch(self, epoch: int) -> int:
        self.rate = warmed_up(self.config.learning_rate, epoch, self.epochs, self.config.warmup_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.drop_path = self.config.drop_path * epoch / self.epochs
        self.tally = Tally()
        self.network.train()
        return len(self.stream)

    def step(self) -> None:
        x, labels = next(self.stream)
        if self.mixing is not None:
            x, labels = self.mixing(x, labels)
        keep = drop_path_factors(self.network, len(x), self.drop_path, self.drop_path_generator, x.device)
        self.optimizer.zero_grad()
        with computing_in(self.precision, x.device):
            output = self.forward(x, keep)
        logits, auxiliary = in_float32(output)
        loss = self.criterion.loss(logits, labels)
        self.tally.add(loss, self.criterion.measures(logits, labels), len(labels))
        if auxiliary is not None:
            loss = loss + self.config.auxiliary_weight * self.criterion.loss(auxiliary, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        with self._averaged():
            valid = evaluate(self.network, self._logits, self.valid(), self.scoring)
            if valid["accuracy"] > self.best.accuracy:
                weights = {
                    name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()
                }
                self.best = _Best(len(history) + 1, valid["accuracy"], weights)
        return {
            **self.tally.means("train_"),
            **{f"valid_{name}": value for name, value in valid.items()},
            "learning_rate": self.rate,
            "drop_path": self.drop_path,
        }

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within the block, the network is the one to be kept, if weights are averaged."""
        if self.average is None:
            yield
            return
        assert self.calibration is not None
        with self.average.in_place(self.network), contextlib.ExitStack() as stack:
            with alone():  # all processes measure the same statistics, on few images
                stack.enter_context(recalibrated(self.network, self._logits, self.calibration()))
            yield

    def _logits(self, x: Tensor) -> Tensor:
        return self.network(x)[0]

    def stopped(self, history: Sequence[Row]) -> bool:
        return False

    def state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
            "drop_path": self.drop_path_generator.get_state(),
            "best": [self.best.epoch, self.best.accuracy, self.best.weights],
            "average": None if self.average is None else self.average.state_dict(),
            "mixing": None if self.mixing is None else self.mixing.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.load_state_dict(state["stream"])
        self.drop_path_generator.set_state(state["drop_path"])
        self.best = _Best(*state["best"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.mixing is not None:
            self.mixing.generator.set_state(state["mixing"])

    def result(self, history: Sequence[Row], on_event: Listener) -> Trained:
        self.network.load_state_dict(self.best.weights)
        weights = {name: weight for name, weight in self.best.weights.items() if not _is_auxiliary(name)}
        return Trained(history, weights, self.best.epoch)


def _is_auxiliary(name: str) -> bool:
    """Whether a weight belongs to the auxiliary head, which only training needs."""
    return name.startswith("auxiliary.")


def drop_path_factors(
    network: FoundNetwork, batch: int, probability: float, generator: torch.Generator, device: torch.device
) -> Tensor | None:
    """Factors (cells, edges, B) of drop path: 0 with ``probability``, else 1 / (1 - probability), per image.

    ``batch`` is B, the number of images in this process's part of the batch.
    """
    if probability == 0:
        return None
    edges = max(len(cell.edges) for cell in network.cells)  # pyright: ignore[reportArgumentType]
    shape = (len(network.cells), edges, full_batch_size(batch))
    uniform = own_part(torch.rand(shape, generator=generator, device=generator.device), dim=2)
    return (uniform >= probability).float().div(1 - probability).to(device)
