"""Loss and accuracy of a classifier, and its batch statistics recalibrated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.images.batches import Batch
from models.images.ops import BatchNorm
from models.training.distributed import dealt, sums


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats, and accuracy in [0, 1]."""

    loss: float
    accuracy: float


class Tally:
    """Sums of loss and right answers, kept on the device: nothing waits for it until ``score``, which is of all processes."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.right: Tensor | float = 0.0
        self.images = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """One batch: its mean loss, logits (B, classes) and labels (B,)."""
        self.loss = self.loss + loss.detach() * len(labels)
        self.right = self.right + (logits.detach().argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def score(self) -> Score:
        loss, right, images = sums(self.loss, self.right, self.images)
        return Score(loss / images, right / images)


@torch.no_grad()
def evaluate(module: nn.Module, logits: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> Score:
    """Score in evaluation mode; ``logits`` maps images (B, C, H, W) to (B, classes) through ``module``."""
    tally = Tally()
    with evaluating(module):
        for x, labels in dealt(batches):
            output = logits(x)
            tally.add(F.cross_entropy(output, labels), output, labels)
    return tally.score()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, the module is in evaluation mode."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


@contextlib.contextmanager
def recalibrated(
    module: nn.Module, logits: Callable[[Tensor], Tensor], batches: Iterable[Batch]
) -> Iterator[None]:
    """Within, the running batch statistics are the averages over ``batches``; restored after."""
    norms = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    kept = [(norm.running_mean.clone(), norm.running_var.clone(), norm.momentum) for norm in norms]
    training = module.training
    try:
        module.train()
        with torch.no_grad():
            for seen, (x, _) in enumerate(batches):
                for norm in norms:
                    norm.momentum = 1.0 / (seen + 1)
                logits(x)
        module.train(training)
        yield
    finally:
        module.train(training)
        for norm, (mean, variance, momentum) in zip(norms, kept, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.momentum = momentum
