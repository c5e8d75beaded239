"""Finds the one scale by which all pixels of more than 8 bits in a data set become uint8.

Integers from 0 to 65535 get the fewest of 8, 10, 12, 14 or 16 bits that hold the brightest training pixel, because
files of 16 bits often hold the 10 to 14 bits of a sensor. All other values (floats, negative or larger integers) get the range from
the least to the greatest training pixel. Test pictures do not influence the scale; what exceeds it is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.errors import UserError
from stages.images.prepare.pictures import DEEP_MODES, Header, Place, Scale, Unreadable, values_of

_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Range:
    """The least and the greatest pixel of a picture, and whether all are finite."""

    low: float
    high: float
    finite: bool


def range_of(path: Place) -> Range:
    """The range of a picture's pixels. Raises Unreadable."""
    values = values_of(path)
    finite = bool(np.isfinite(values).all())
    return Range(float(values.min()), float(values.max()), finite) if finite else Range(0, 0, finite)


def is_deep(header: Header) -> bool:
    return header.mode in DEEP_MODES


def scale_of(
    headers: Mapping[Place, Header],
    training: Sequence[Place],
    each: Callable[[Callable[[Place], Range], Sequence[Place]], Iterable[tuple[Place, Range | Unreadable]]],
) -> tuple[Scale, str] | None:
    """The scale and where it comes from, or None when no picture has more than 8 bits per channel.

    ``each`` applies a function to many pictures. Raises UserError when no scale makes sense.
    """
    deep = [path for path, header in headers.items() if is_deep(header)]
    if not deep:
        return None
    in_training = set(training)
    ranges: dict[Place, Range] = {}
    for path, found in each(range_of, deep):
        if isinstance(found, Unreadable):
            continue  # decoding lists all unreadable pictures
        ranges[path] = found
    if infinite := [path for path, found in ranges.items() if not found.finite]:
        raise UserError(
            f"{len(infinite)} pictures have pixels that are not numbers or infinite (first: {infinite[0]}); replace"
            " such pixels"
        )
    measured = [found for path, found in ranges.items() if path in in_training]
    if not measured:
        raise UserError(
            f"{deep[0]} has more than 8 bits per channel, but no training picture has; save all pictures alike"
        )
    low, high = min(found.low for found in measured), max(found.high for found in measured)
    modes = {headers[path].mode for path in ranges}
    if "F" not in modes and low >= 0 and high <= 2**16 - 1:
        bits = next(bits for bits in _BITS if high <= 2**bits - 1)
        return Scale(
            0, 2**bits - 1
        ), f"{bits} bits, the fewest that hold the brightest training pixel ({high:g})"
    if len(deep) < len(headers):
        plain = next(path for path in headers if path not in ranges)
        raise UserError(
            f"{len(headers) - len(deep)} pictures have 8 bits per channel (first: {plain}) and {len(deep)} have values"
            f" from {low:g} to {high:g} (first: {deep[0]}), which no scale can join; save all pictures alike"
        )
    if "F" in modes and len(modes) > 1:
        raise UserError(
            f"some pictures hold floats and some integers of more than 8 bits ({', '.join(sorted(modes))}), which no"
            " scale can join; save all pictures alike"
        )
    if math.isclose(low, high):
        raise UserError(f"all pixels of all training pictures are {low:g}; correct the pictures")
    return Scale(low, high), "the range of the training pictures"
