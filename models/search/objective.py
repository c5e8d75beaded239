"""What strategies see of data and networks: the loss of one batch, as a function of weights and mix.

``Domain`` is what a search asks of a task (images, series, circuits). ``BatchObjective`` is the objective of
one batch of a domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.search.spaces import SearchSpace
from models.training.distributed import averaging_gradients, mean_loss
from models.training.evaluation import Batch, Criterion, evaluating
from models.training.precision import computing_in, in_float32

Params = Mapping[str, Tensor]  # weight name -> tensor, for torch.func.functional_call
Mix = Mapping[str, Tensor]  # group -> (edges, operations), the weights of the candidate operations


class Domain(Criterion, Protocol):
    """What a search asks of a task. The supernet is called as ``supernet(x, mix)``."""

    @property
    def space(self) -> SearchSpace: ...

    @property
    def metric(self) -> str:
        """The measure that says how good a network is."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """The direction of that measure."""
        ...

    @property
    def generators(self) -> Mapping[str, torch.Generator]:
        """The random sources that the supernet draws from while it runs."""
        ...

    def recalibrated(
        self, supernet: nn.Module, output: Callable[[Any], Any], batches: Iterable[Batch]
    ) -> AbstractContextManager[None]:
        """Adapts the supernet's running statistics to ``output`` within the block."""
        ...


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass over a batch.

    Where several processes share the batch, ``loss`` and ``output`` are those of this process's part; the
    gradients are those of the full batch.
    """

    loss: Tensor
    output: Any
    gradients: Params  # weight name -> gradient of the loss


@dataclass(frozen=True)
class Samples:
    """Sampled architectures on one batch.

    ``losses`` (N, T) have gradients: one column for all groups, or one column per group. ``output`` is what the
    domain measures.
    """

    losses: Tensor
    output: Any


class Objective(Protocol):
    """The loss of one batch of one split."""

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        """The loss, a scalar with gradients, in training mode."""
        ...

    def in_full_precision(self) -> Objective:
        """The same objective, computed in the precision of weights and mix."""
        ...

    def thinned(self, every: int) -> Objective:
        """The loss on every ``every``-th case of the batch alone."""
        ...

    def evaluated(self, params: Params, mix: Mix) -> Tensor:
        """The loss, a scalar with gradients, in evaluation mode.

        It changes no batch statistics and draws no random numbers.
        """
        ...

    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        """Losses (N,) of N mixes as in ``evaluated``, but without gradients and in one pass."""
        ...

    def joint_pass(self, params: Params, mix: Mix) -> tuple[Pass, dict[str, Tensor]]:
        """One pass in training mode, and the gradient of the loss with respect to the mix."""
        ...

    def sampled(self, params: Params, chosen: Mapping[str, Tensor]) -> Samples:
        """The losses of N architectures in training mode: group -> (N, edges, operations), 1 where chosen, else 0."""
        ...


class BatchObjective:
    """The loss of one batch (x, target) under given weights and mix. The network computes in ``precision``.

    Where several processes share the batch, (x, target) is this process's part, but losses and gradients are
    those of the full batch.
    """

    def __init__(
        self,
        criterion: Criterion,
        module: nn.Module,
        x: Any,
        target: Tensor,
        precision: torch.dtype = torch.float32,
    ):
        self.criterion, self.module, self.x, self.target = criterion, module, x, target
        self.precision = precision

    def in_full_precision(self) -> BatchObjective:
        return BatchObjective(self.criterion, self.module, self.x, self.target)

    def thinned(self, every: int) -> BatchObjective:
        """Not the first cases: where processes share the batch, they would be other cases than those of one process."""
        x, target = self.x[::every], self.target[::every]
        return BatchObjective(self.criterion, self.module, x, target, self.precision)

    def output(self, params: Params, mix: Mix) -> Any:
        """The network's output for the batch."""
        params, mix = averaging_gradients(params, mix)
        with computing_in(self.precision, self.target.device):
            output = functional_call(self.module, dict(params), (self.x, mix))
        return in_float32(output)

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        return mean_loss(self.criterion.loss(self.output(params, mix), self.target))

    def evaluated(self, params: Params, mix: Mix) -> Tensor:
        with evaluating(self.module):
            return self(params, mix)

    @torch.no_grad()
    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        stacked = {group: torch.stack([mix[group] for mix in mixes]) for group in mixes[0]}
        with evaluating(self.module):
            outputs = self.output(params, stacked).unflatten(0, (len(mixes), -1))
        return mean_loss(torch.stack([self.criterion.loss(output, self.target) for output in outputs]))

    def joint_pass(self, params: Params, mix: Mix) -> tuple[Pass, dict[str, Tensor]]:
        params, mix = leaves(params), leaves(mix)
        output = self.output(params, mix)
        loss = self.criterion.loss(output, self.target)
        gradients = torch.autograd.grad(loss, [*mix.values(), *params.values()])
        of_mix = dict(zip(mix, gradients, strict=False))
        of_weights = dict(zip(params, gradients[len(mix) :], strict=True))
        return Pass(loss.detach(), output, of_weights), of_mix

    def sampled(self, params: Params, chosen: Mapping[str, Tensor]) -> Samples:
        """Each architecture has a pass of its own. The output is that of the first one."""
        mixes = [dict(zip(chosen, rows, strict=True)) for rows in zip(*chosen.values(), strict=True)]
        outputs = [self.output(params, mix) for mix in mixes]
        losses = [mean_loss(self.criterion.loss(output, self.target)) for output in outputs]
        return Samples(torch.stack(losses)[:, None], outputs[0])


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as leaves of a new graph, detached from what they were computed from."""
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
