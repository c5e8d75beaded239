"""Noise: channels on one qubit by their Kraus matrices, and where a circuit suffers them.

A channel maps a density matrix rho to the sum of K rho K^dagger over its Kraus matrices K (Nielsen and Chuang,
section 8.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import InvalidInput

Kraus = Sequence[Sequence[Sequence[complex]]]

_I, _X, _Y, _Z = ((1, 0), (0, 1)), ((0, 1), (1, 0)), ((0, -1j), (1j, 0)), ((1, 0), (0, -1))


def _scaled(weight: float, matrix: Sequence[Sequence[complex]]) -> list[list[complex]]:
    return [[math.sqrt(weight) * value for value in row] for row in matrix]


def _bit_flip(p: float) -> Kraus:
    return [_scaled(1 - p, _I), _scaled(p, _X)]


def _phase_flip(p: float) -> Kraus:
    return [_scaled(1 - p, _I), _scaled(p, _Z)]


def _depolarizing(p: float) -> Kraus:
    """Replaces the state by the completely mixed one with probability p."""
    return [_scaled(1 - 3 * p / 4, _I), *(_scaled(p / 4, pauli) for pauli in (_X, _Y, _Z))]


def _amplitude_damping(p: float) -> Kraus:
    """A 1 decays to 0 with probability p."""
    return [[[1, 0], [0, math.sqrt(1 - p)]], [[0, math.sqrt(p)], [0, 0]]]


CHANNELS: Mapping[str, Callable[[float], Kraus]] = {
    "bit_flip": _bit_flip,
    "phase_flip": _phase_flip,
    "depolarizing": _depolarizing,
    "amplitude_damping": _amplitude_damping,
}


@dataclass(frozen=True)
class Channel:
    """A channel of ``CHANNELS`` with its probability."""

    name: str
    probability: float

    def kraus(self) -> Kraus:
        return CHANNELS[self.name](self.probability)


@dataclass(frozen=True)
class Noise:
    """Where the qubits of a circuit suffer channels.

    idle    each qubit that does nothing in a moment, before that moment
    moment  every qubit, after each moment
    gate    the qubits of each gate, after it
    """

    idle: tuple[Channel, ...] = ()
    moment: tuple[Channel, ...] = ()
    gate: tuple[Channel, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.idle or self.moment or self.gate)


NOISELESS = Noise()


def channel(text: str) -> Channel:
    """The channel of a text such as "bit_flip(0.02)". Raises InvalidInput."""
    found = re.fullmatch(r"\s*(\w+)\(\s*([^()]*?)\s*\)\s*", text)
    if found is None or found[1] not in CHANNELS:
        raise InvalidInput(
            f"noise {text!r} is unknown; write one of {', '.join(f'{n}(p)' for n in CHANNELS)}"
        )
    try:
        probability = float(found[2])
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise InvalidInput(f"noise {text!r}: the probability is {found[2]!r}; set one from 0 to 1")
    return Channel(found[1], probability)


def noise(idle: Sequence[str] = (), moment: Sequence[str] = (), gate: Sequence[str] = ()) -> Noise:
    """The noise of these texts. Raises InvalidInput."""
    return Noise(*(tuple(map(channel, texts)) for texts in (idle, moment, gate)))


def superoperator(channels: Sequence[Channel]) -> Tensor:
    """The channels one after the other as a matrix (4, 4), complex128.

    It maps the entries of a density matrix, row * 2 + column, to those after the channels.
    """
    total = torch.eye(4, dtype=torch.complex128)
    for channel in channels:
        kraus = torch.tensor(channel.kraus(), dtype=torch.complex128)
        total = torch.stack([torch.kron(one, one.conj().resolve_conj()) for one in kraus]).sum(dim=0) @ total
    return total
