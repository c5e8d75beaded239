"""The precision of a training: its passes compute in float32, or in bfloat16 where 8 bits of mantissa are enough.

With bfloat16, ``computing_in`` runs a forward pass under PyTorch's autocast: convolutions and matrix products take
bfloat16, and their gradients too. Weights, architecture parameters, the states of the optimizers, batch
statistics and losses stay float32, and so does every measurement between the epochs (validation, recalibrated
statistics, discretization gap, Hessian eigenvalue).

Compared with float32 on a CPU, the losses of tiny searches (DARTS, MS-DARTS, single-level) differ by at most 0.75%
over eight steps and those of tiny retrainings by at most 1.3%; tests/models/test_precision.py tolerates 3%. Later,
a search may take another way, as after any change of a rounding. ``unrolled`` (models/search/gradients.py) stays in
float32. Not tried: CUDA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

_TYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolved(setting: str) -> str:
    """The precision that ``train.precision`` means on this machine.

    "auto" is bfloat16 on CUDA and float32 elsewhere.
    """
    if setting == "auto":
        return "bfloat16" if torch.cuda.is_available() else "float32"
    return setting


def type_of(setting: str) -> torch.dtype:
    """The type that the passes of a training compute in."""
    return _TYPES[resolved(setting)]


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Within the block, a forward pass computes in that precision. float32 leaves all types as they are.

    One block holds one pass, without its backward pass. Autocast keeps the weights that it has converted until
    the block ends, so a block must not see them change.
    """
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def in_float32(output: Any) -> Any:
    """A network's output, or a tuple of outputs, with bfloat16 tensors converted to float32."""
    if isinstance(output, tuple):
        return tuple(in_float32(part) for part in output)
    return output.float() if isinstance(output, Tensor) and output.dtype == torch.bfloat16 else output


def converted(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's type where autocast is on, for operations that autocast does not know."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)
