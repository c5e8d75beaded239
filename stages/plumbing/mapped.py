"""Random reads from a memory-mapped array that may be larger than the memory.

A page that is missing costs a wait for the disk when it is touched. The kernel then reads its neighbours too, as many
as the disk's read-ahead says (8 MiB on some), and throws out as much where memory is short. With random rows that is
nearly all in vain. So the neighbours are left alone, and the rows of a batch are named before they are touched: the
kernel reads them at the same time, instead of one page after the other.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray

_PIECE = (
    128 << 10
)  # bytes; of a longer range, the kernel may read no more than its read-ahead, often this much


def announcer(array: NDArray[Any]) -> Callable[[Iterable[int]], None]:
    """Prepares a memory-mapped array for random reads. Returns what starts to read rows, without waiting for them.

    ``array`` is what ``np.load(..., mmap_mode=...)`` returns. Its content is the same with and without.
    """
    mapping = array.base
    assert isinstance(mapping, mmap.mmap)
    mapping.madvise(mmap.MADV_RANDOM)
    first = len(mapping) - array.nbytes
    row_bytes = array.strides[0]

    def announce(rows: Iterable[int]) -> None:
        for row in rows:
            start = first + row * row_bytes
            end = start + row_bytes
            start -= start % mmap.PAGESIZE  # which the kernel demands
            for piece in range(start, end, _PIECE):
                mapping.madvise(mmap.MADV_WILLNEED, piece, min(_PIECE, end - piece))

    return announce
