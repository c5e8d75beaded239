"""One training on several devices: every process holds the network and works on its own part of each batch.

The result is that of one process on the same batches, except for the order in which numbers are added:

    random numbers    every process draws those of the full batch from the same generator, and keeps its part
                      (``own_part``)
    batch statistics  those of the full batch (``batch_norm``)
    losses            means over all parts, the same number in every process (``mean_loss``, ``sums``)
    gradients         means over all parts. PyTorch's DistributedDataParallel averages those of a network's
                      weights (``parallel``). ``averaging_gradients`` averages those of weights and mixes that
                      are arguments, as in the search: no module owns them, and their gradients are asked for
                      in the middle of a step

So all processes take the same steps and stay equal. The parts of a batch are equal in size, so that the mean
of their means is the mean over the batch. The processes are those of PyTorch's default process group. Where
there is none, or within ``alone``, every function here returns what it was given. Not covered: several
machines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def processes() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within the block, every process does all of the work, because it is small or cannot be divided."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def full_batch_size(own_size: int) -> int:
    """The size of the batch of which this process has a part of ``own_size``."""
    return own_size * processes()


def own_part(batch: Tensor, dim: int = 0) -> Tensor:
    """This process's part of a batch, whose size along ``dim`` is a multiple of the number of processes."""
    if processes() == 1:
        return batch
    assert batch.shape[dim] % processes() == 0, (batch.shape, dim)
    return batch.chunk(processes(), dim)[rank()]


def own_items(items: Iterable[Item]) -> Iterable[Item]:
    """The items that this process works on: every process takes one in turn. ``sums`` adds up the results."""
    return items if processes() == 1 else islice(items, rank(), None, processes())


def gathered(part: Tensor) -> Tensor:
    """The full batch of which every process has an equal part; no gradient leads back through it."""
    if processes() == 1:
        return part
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(processes())]
    dist.all_gather(parts, part)
    return torch.cat(parts)


def sums(*values: Tensor | float) -> tuple[float, ...]:
    """The sum of each number over the processes."""
    numbers = [float(value) for value in values]
    if processes() == 1:
        return tuple(numbers)
    total = torch.tensor(numbers, dtype=torch.float64, device=_device())
    dist.all_reduce(total)
    return tuple(total.tolist())


def agreed(value: float) -> float:
    """The value of the first process, for decisions that a rounding error must not make differ."""
    if processes() == 1:
        return value
    number = torch.tensor(value, dtype=torch.float64, device=_device())
    dist.broadcast(number, src=0)
    return float(number)


def mean_loss(loss: Tensor) -> Tensor:
    """The mean of the losses over the processes, element by element.

    Its gradient is that of this process's own loss, because gradients are averaged where they arrive.
    """
    return loss if processes() == 1 else _MeanLoss.apply(loss)


def averaging_gradients(*groups: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], ...]:
    """The tensors themselves. Gradients that reach them are averaged over the processes, in one exchange."""
    differentiable = [tensor for group in groups for tensor in group.values() if tensor.requires_grad]
    if processes() == 1 or not differentiable or not torch.is_grad_enabled():
        return groups
    averaging = iter(_MeanGradients.apply(*differentiable))
    return tuple(
        {name: next(averaging) if tensor.requires_grad else tensor for name, tensor in group.items()}
        for group in groups
    )


def parallel(network: nn.Module) -> nn.Module:
    """The network; the gradients of its weights are averaged over the processes while they are computed."""
    if processes() == 1:
        return network
    # A genotype may have edges that lead nowhere, so some weights get no gradient. With find_unused_parameters,
    # the exchange also keeps the layout of its first step: resuming a training changes no order of additions.
    return DistributedDataParallel(network, forward_sync_buffers=False, find_unused_parameters=True)


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """F.batch_norm, in training with the statistics of the full batch (nn.SyncBatchNorm needs a GPU).

    The statistics are float32 for bfloat16 too, and the result has the type of x.
    """
    if not training or processes() == 1:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    exact = x.float() if x.dtype == torch.bfloat16 else x
    y, mean, variance = _BatchNorm.apply(exact, weight, bias, eps)
    count = full_batch_size(x.numel() // x.shape[1])
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    return y.to(x.dtype)


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return _mean(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _MeanGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a tensor that the loss does not depend on gets no gradient
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        some = [gradient for gradient in gradients if gradient is not None]
        parts = iter(
            _mean(torch.cat([part.flatten() for part in some])).split([part.numel() for part in some])
        )
        return tuple(None if own is None else next(parts).view(own.shape) for own in gradients)


class _BatchNorm(torch.autograd.Function):
    """Batch norm of (B, C, H, W) over all processes.

    Gives the normalized part of this process, and the mean and the biased variance of the full batch.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.stack(torch.var_mean(x, dim=(0, 2, 3), correction=0))
        parts = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(parts, own)
        variances, means = torch.stack(parts, dim=1)
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        gradient = gradients[0]
        # The gradients of weight and bias: sums over this process's part, around the mean of the full batch.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, scale, True, ctx.eps, [False, True, True]
        )
        gradient_x = None
        if ctx.needs_input_grad[0]:
            pixels = x.numel() // x.shape[1]
            along, level = (_mean(torch.stack([of_weight * scale, of_bias])) / pixels)[:, :, None, None]
            if weight is not None:
                scale = scale * weight
            gradient_x = (
                (gradient - level).addcmul_(x - mean[:, None, None], -along).mul_(scale[:, None, None])
            )
        wanted = ctx.needs_input_grad
        return gradient_x, of_weight if wanted[1] else None, of_bias if wanted[2] else None, None


def _mean(tensor: Tensor) -> Tensor:
    """The mean over the processes, in a new tensor."""
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total.div_(dist.get_world_size())


def _device() -> torch.device:
    """The device on which the process group exchanges tensors."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
