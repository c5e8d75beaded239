"""Running batch statistics, measured again for a mix that the network was not trained at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from models.images.batches import Batch
from models.images.ops.norm import BatchNorm


@contextlib.contextmanager
def recalibrated(
    module: nn.Module, logits: Callable[[Tensor], Tensor], batches: Iterable[Batch]
) -> Iterator[None]:
    """Replaces the running batch statistics by the averages over ``batches`` within the block."""
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
