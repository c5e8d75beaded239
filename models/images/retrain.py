"""Trains a found network from scratch as in DARTS, section 3.2: drop path, auxiliary head, cosine rate.

Differs from the published code in that the weights of the best *validation* accuracy are kept: the test set
plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.batches import Batch
from models.images.builders import FoundNetwork
from models.images.task import right_answers
from models.training.ahead import Ahead, Stream
from models.training.distributed import full_batch_size, own_part, parallel
from models.training.evaluation import Criterion, Tally, evaluate
from models.training.events import Listener, Row, State
from models.training.optimizers import SGD
from models.training.precision import computing_in, in_float32
from models.training.schedules import cosine
from models.training.trained import Trained


@dataclass(frozen=True)
class RetrainConfig:
    """SGD with a learning rate that falls to 0 along a cosine; defaults are the published ones."""

    epochs: int = 600
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    drop_path: float = 0.2  # probability in the last epoch; rises linearly from 0
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.4


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of logits (B, classes) and labels (B,), and the number of right answers.

    With ``class_weights`` (classes,), the loss is the mean over the images of their cross-entropy, with label smoothing
    if any, times the weight of their class. PyTorch's own weighted mean divides by the sum of the weights in the batch
    instead, so a batch without images of a rare class would count as much as one with many.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(output, target, label_smoothing=self.label_smoothing)
        losses_B = F.cross_entropy(output, target, label_smoothing=self.label_smoothing, reduction="none")
        return (self.class_weights[target] * losses_B).mean()

    def measures(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"accuracy": right_answers(output, target)}


@dataclass
class _Best:
    """The best epoch so far, by validation accuracy."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Retraining:
    """The training of a found network, which is already on its device, as a program of the loop.

    The result is the first epoch of the highest validation accuracy. When the training has ended, the network
    holds the weights of that epoch. The passes of a step compute in ``precision``; validation is float32.
    ``class_weights`` (classes,), on the network's device, are those of the loss. ``scoring`` is what is measured on
    the validation images.
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
    ):
        self.network, self.valid, self.config = network, valid, config
        self.stream = Ahead(stream)
        self.drop_path_generator, self.precision = drop_path_generator, precision
        self.criterion, self.scoring = Classification(config.label_smoothing, class_weights), scoring
        self.optimizer = SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
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
        self.rate = cosine(self.config.learning_rate, 0.0, epoch, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.drop_path = self.config.drop_path * epoch / self.epochs
        self.tally = Tally()
        self.network.train()
        return len(self.stream)

    def step(self) -> None:
        x, labels = next(self.stream)
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

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        valid = evaluate(self.network, lambda x: self.network(x)[0], self.valid(), self.scoring)
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

    def stopped(self, history: Sequence[Row]) -> bool:
        return False

    def state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
            "drop_path": self.drop_path_generator.get_state(),
            "best": [self.best.epoch, self.best.accuracy, self.best.weights],
        }

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.load_state_dict(state["stream"])
        self.drop_path_generator.set_state(state["drop_path"])
        self.best = _Best(*state["best"])

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
