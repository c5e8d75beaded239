"""The inputs and outputs of a network: names, data types and shapes, in the words of the Open Inference Protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from serving.errors import ModelError

# Data types of the protocol -> how NumPy holds them. The bytes of a tensor are little-endian.
NUMPY: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_ONNX_NAMES = {"float32": "float", "float64": "double"}  # where they differ from NumPy's
ONNX = {f"tensor({_ONNX_NAMES.get(dtype.name, dtype.name)})": name for name, dtype in NUMPY.items()}


@dataclass(frozen=True)
class Tensor:
    """An input or an output."""

    name: str
    datatype: str  # one of NUMPY
    shape: tuple[int, ...]  # -1 where the network fixes no size

    def allows(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be given."""
        return len(shape) == len(self.shape) and all(
            fixed in (-1, size) for fixed, size in zip(self.shape, shape, strict=True)
        )

    def rows(self, shape: Sequence[int]) -> int:
        """The product of the sizes that the network does not fix: what a call costs grows with it."""
        return math.prod(size for fixed, size in zip(self.shape, shape, strict=True) if fixed == -1)

    def most(self, rows: int) -> int:
        """The number of values of the largest tensor with this many rows."""
        return rows * math.prod(size for size in self.shape if size != -1)


def signature(
    session: onnxruntime.InferenceSession, where: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and outputs. Raises ModelError if one of them is not a tensor of numbers."""
    return _tensors(session.get_inputs(), where), _tensors(session.get_outputs(), where)


def _tensors(values: Sequence[Any], where: str) -> tuple[Tensor, ...]:
    for value in values:
        if value.type not in ONNX:
            raise ModelError(f"{where}: {value.name} must be a tensor of numbers, got {value.type}")
    return tuple(
        Tensor(
            value.name, ONNX[value.type], tuple(size if isinstance(size, int) else -1 for size in value.shape)
        )
        for value in values
    )
