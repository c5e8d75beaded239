"""Batches of windows of series, and of chunks of text; each can be resumed at any batch.

Axes: B batch, L look-back, V variables (targets first), K targets, T tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.sequences.skeleton import SeriesShape
from models.training.batches import ShuffledIndices

Batch = tuple[Any, Tensor]


@dataclass(frozen=True)
class Windows:
    """The windows of a split, in the rows of all series.

    ``values`` (rows, V) are in the user's units and may be memory-mapped; ``origins`` (cases,) are the windows' first
    rows. ``factors`` (cases, K) turn errors in standardized units into MASE units. ``mean`` and ``std`` (V,) are float64:
    values may be large compared to their changes, so they are standardized in float64.
    """

    values: Tensor
    origins: Tensor
    factors: Tensor
    mean: Tensor
    std: Tensor
    shape: SeriesShape

    def __len__(self) -> int:
        return len(self.origins)

    def batch(self, cases: Tensor, device: torch.device) -> Batch:
        """Windows (B, L, V), and the target (B, horizon + 1, K) that models/sequences/task.py expects."""
        shape = self.shape
        steps = torch.arange(shape.lookback + shape.horizon)
        raw = self.values[self.origins[cases, None] + steps]
        values = ((raw.double() - self.mean) / self.std).to(torch.get_default_dtype())
        truth = values[:, shape.lookback :, : shape.targets]
        target = torch.cat([truth, self.factors[cases, None].to(truth.dtype)], dim=1)
        return values[:, : shape.lookback].to(device), target.to(device)


class WindowStream:
    """An endless stream of batches of windows in random order.

    A pass has ``count`` windows, or all. Where these are fewer, the next pass continues with those that have not been
    drawn yet, until all have been.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        generator: torch.Generator,
        *,
        cases: Tensor | None = None,
        count: int | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        self.windows, self.device = windows, device
        self.indices = ShuffledIndices(
            torch.arange(len(windows)) if cases is None else cases, batch_size, generator
        )
        self.count = count

    def __len__(self) -> int:
        whole = len(self.indices)
        return whole if self.count is None else max(1, min(whole, self.count // self.indices.batch_size))

    def __next__(self) -> Batch:
        return self.windows.batch(next(self.indices), self.device)

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.indices.load_state_dict(state)


def windows_in_order(
    windows: Windows, batch_size: int, device: torch.device, cases: Tensor | None = None
) -> Iterator[Batch]:
    """Windows once, in the order of ``cases``, or all in their own."""
    for some in (torch.arange(len(windows)) if cases is None else cases).split(batch_size):
        yield windows.batch(some, device)


class ChunkStream:
    """An endless stream of chunks from random places of a text, each by itself: tokens (B, T) and those that follow.

    A pass has ``count`` chunks, or as many as the text has tokens for.
    """

    def __init__(
        self,
        tokens: Tensor,
        batch_size: int,
        chunk: int,
        generator: torch.Generator,
        *,
        count: int | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        if len(tokens) <= chunk:
            raise InvalidInput(_too_short(len(tokens), chunk))
        self.tokens, self.batch_size, self.chunk = tokens, batch_size, chunk
        self.generator, self.count, self.device = generator, count, device

    def __len__(self) -> int:
        whole = len(self.tokens) // self.chunk
        return max(1, (whole if self.count is None else min(whole, self.count)) // self.batch_size)

    def __next__(self) -> Batch:
        starts = torch.randint(len(self.tokens) - self.chunk, (self.batch_size, 1), generator=self.generator)
        return _chunks(self.tokens, starts, self.chunk, self.device)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


def chunks_in_order(tokens: Tensor, batch_size: int, chunk: int, device: torch.device) -> Iterator[Batch]:
    """The chunks of a text once, in their order, each by itself; what fills no chunk at the end is left out."""
    if len(tokens) <= chunk:
        raise InvalidInput(_too_short(len(tokens), chunk))
    for starts in torch.arange(0, len(tokens) - chunk, chunk).split(batch_size):
        yield _chunks(tokens, starts[:, None], chunk, device)


class TrackStream:
    """An endless stream of chunks that continue each other, in B tracks through a text.

    The input of a batch is its tokens (B, T) and whether they are the tracks' first, so that a state begins anew. Each
    way through the text begins at another place. A pass has ``count`` chunks, or as many as a way has.
    """

    def __init__(
        self,
        tokens: Tensor,
        batch_size: int,
        chunk: int,
        generator: torch.Generator,
        *,
        count: int | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        if len(tokens) <= chunk:
            raise InvalidInput(_too_short(len(tokens), chunk))
        self.tokens, self.chunk, self.generator, self.device = tokens, chunk, generator, device
        self.tracks = max(1, min(batch_size, len(tokens) // (chunk + 1)))
        # One chunk less than there are tokens for, where there are several, leaves room for another beginning.
        self.length = (len(tokens) - 1) // self.tracks
        self.steps = max(1, self.length // chunk - 1) if self.length >= 2 * chunk else 1
        self.count, self.position, self.shift = count, 0, 0

    def __len__(self) -> int:
        return self.steps if self.count is None else max(1, min(self.steps, self.count // self.tracks))

    def __next__(self) -> Batch:
        first = self.position == 0
        if first:
            room = self.length - self.steps * self.chunk
            self.shift = int(torch.randint(room + 1, (), generator=self.generator))
        starts = torch.arange(self.tracks)[:, None] * self.length + self.shift + self.position * self.chunk
        self.position = (self.position + 1) % self.steps
        tokens, following = _chunks(self.tokens, starts, self.chunk, self.device)
        return (tokens, first), following

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "position": self.position, "shift": self.shift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.position, self.shift = state["position"], state["shift"]


def tracks_in_order(tokens: Tensor, tracks: int, chunk: int, device: torch.device) -> Iterator[Batch]:
    """A text once in up to ``tracks`` tracks, as ``TrackStream`` has it; what fills no chunk in all tracks is left out."""
    if len(tokens) <= chunk:
        raise InvalidInput(_too_short(len(tokens), chunk))
    tracks = max(1, min(tracks, (len(tokens) - 1) // chunk))
    length = (len(tokens) - 1) // tracks
    for position in range(length // chunk):
        starts = torch.arange(tracks)[:, None] * length + position * chunk
        inputs, following = _chunks(tokens, starts, chunk, device)
        yield (inputs, position == 0), following


def _chunks(tokens: Tensor, starts_B1: Tensor, chunk: int, device: torch.device) -> tuple[Tensor, Tensor]:
    found = tokens[starts_B1 + torch.arange(chunk + 1)].long().to(device)
    return found[:, :-1], found[:, 1:]


def _too_short(tokens: int, chunk: int) -> str:
    return (
        f"a part of the text has {tokens} tokens, but a chunk needs {chunk + 1}; lower data.chunk or add text"
    )
