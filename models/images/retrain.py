"""Training a found network from scratch, as in DARTS section 3.2: drop path, auxiliary head, cosine rate.

Differs from the published code in that the weights kept are those of the best *validation* accuracy: the test set
has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import Diverged
from models.images.batches import Batch, BatchStream
from models.images.evaluate import Tally, evaluate
from models.images.families import FoundNetwork
from models.training.distributed import parallel, share, whole
from models.training.events import EpochEnd, Listener, Row, State, StepEnd, silent
from models.training.schedules import cosine


@dataclass(frozen=True)
class TrainConfig:
    """SGD with a cosine rate to 0; defaults are the published ones."""

    epochs: int = 600
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    drop_path: float = 0.2  # probability in the last epoch; rises linearly from 0
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.4


@dataclass(frozen=True)
class TrainResult:
    """``weights`` are those after ``best_epoch``, the first epoch of the highest validation accuracy."""

    history: list[Row]
    weights: dict[str, Tensor]
    best_epoch: int


@dataclass
class _Progress:
    history: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def train(
    network: FoundNetwork,
    stream: BatchStream,
    valid: Callable[[], Iterable[Batch]],
    config: TrainConfig,
    drop_path_generator: torch.Generator,
    *,
    device: torch.device = torch.device("cpu"),
    on_event: Listener = silent,
    resume: State | None = None,
) -> TrainResult:
    """Trains or resumes; on return the network holds the best weights. Raises Diverged when a loss is not finite."""
    network = network.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    forward = parallel(network)
    progress = _Progress()

    def state() -> State:
        return {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "stream": stream.state_dict(),
            "drop_path": drop_path_generator.get_state(),
            "history": progress.history,
            "best": [progress.best_epoch, progress.best_accuracy, progress.best_weights],
        }

    if resume is not None:
        network.load_state_dict(resume["network"])
        optimizer.load_state_dict(resume["optimizer"])
        stream.load_state_dict(resume["stream"])
        drop_path_generator.set_state(resume["drop_path"])
        progress = _Progress(resume["history"], *resume["best"])

    for epoch in range(len(progress.history), config.epochs):
        rate = cosine(config.learning_rate, 0.0, epoch, config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        drop_path = config.drop_path * epoch / config.epochs
        tally = Tally()
        network.train()
        for step in range(len(stream)):
            x, labels = next(stream)
            keep = drop_path_factors(network, len(x), drop_path, drop_path_generator, device)
            optimizer.zero_grad()
            logits, auxiliary = forward(x, keep)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            tally.add(loss, logits, labels)
            if auxiliary is not None:
                extra = F.cross_entropy(auxiliary, labels, label_smoothing=config.label_smoothing)
                loss = loss + config.auxiliary_weight * extra
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            optimizer.step()
            on_event(StepEnd(epoch + 1, config.epochs, step + 1, len(stream)))
        score = tally.score()
        if not math.isfinite(score.loss):
            raise Diverged(
                f"the training loss became {score.loss} in epoch {epoch + 1}; lower retrain.learning_rate"
            )
        validation = evaluate(network, lambda x: network(x)[0], valid())
        row = {
            "epoch": epoch + 1,
            "train_loss": score.loss,
            "train_accuracy": score.accuracy,
            "valid_loss": validation.loss,
            "valid_accuracy": validation.accuracy,
            "learning_rate": rate,
            "drop_path": drop_path,
        }
        progress.history.append(row)
        if validation.accuracy > progress.best_accuracy:
            progress.best_epoch, progress.best_accuracy = epoch + 1, validation.accuracy
            progress.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()
            }
        on_event(EpochEnd(epoch + 1, config.epochs, row, state))
    network.load_state_dict(progress.best_weights)
    return TrainResult(progress.history, progress.best_weights, progress.best_epoch)


def drop_path_factors(
    network: FoundNetwork, batch: int, probability: float, generator: torch.Generator, device: torch.device
) -> Tensor | None:
    """Factors (cells, edges, B) of drop path: 0 with ``probability``, else 1 / (1 - probability), per image.

    ``batch`` is B, this process's share of the images.
    """
    if probability == 0:
        return None
    edges = max(len(cell.edges) for cell in network.cells)  # pyright: ignore[reportArgumentType]
    shape = (len(network.cells), edges, whole(batch))
    uniform = share(torch.rand(shape, generator=generator, device=generator.device), dim=2)
    return (uniform >= probability).float().div(1 - probability).to(device)
