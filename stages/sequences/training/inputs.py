"""The prepared series and texts as input of the training: splits as tensors, and batches."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from models.search.program import Loaders
from models.sequences.skeleton import SeriesShape
from models.sequences.streams import (
    ChunkStream,
    TrackStream,
    Windows,
    WindowStream,
    chunks_in_order,
    windows_in_order,
)
from models.training.seeds import generator
from stages.errors import UserError
from stages.sequences.data import (
    LENGTHS,
    SCALES,
    VALUES,
    SequenceCard,
    Split,
    read_array,
    read_text,
    read_windows,
    shape_of,
)
from stages.sequences.params import RetrainParams, SearchParams
from stages.strategies import needs_architecture_batches

EVALUATION_BATCH = 256  # windows or chunks at once where there are no gradients
_TRACKS, _CHUNKS_PER_TRACK = 64, 16  # of a text that is validated: at most, and at least


def device() -> torch.device:
    """The CUDA device if there is one (CUDA_VISIBLE_DEVICES selects it), otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def windows_of(card: SequenceCard, split: Split) -> Windows:
    """The windows of a split, in arrays that share memory with their files."""
    origins, series = read_windows(split)
    shape = shape_of(card, 0)
    assert isinstance(shape, SeriesShape)
    mean, std = torch.tensor(card.mean, dtype=torch.float64), torch.tensor(card.std, dtype=torch.float64)
    scales = torch.from_numpy(read_array(SCALES)[series])
    return Windows(
        values=torch.from_numpy(read_array(VALUES)),
        origins=torch.from_numpy(origins),
        factors=(std[: shape.targets] / scales).float(),
        mean=mean,
        std=std,
        shape=shape,
    )


def read_tokens(card: SequenceCard, split: Split) -> Tensor:
    """The tokens (N,) of a split."""
    return torch.from_numpy(read_text(card, split)[0])


def characters() -> Tensor:
    """How many characters each entry of the vocabulary has, on the device."""
    return torch.from_numpy(read_array(LENGTHS)).to(torch.get_default_dtype()).to(device())


def tracks_for(tokens: int, chunk: int) -> int:
    """In how many tracks a text of so many tokens is validated."""
    return max(1, min(_TRACKS, tokens // (_CHUNKS_PER_TRACK * chunk)))


def stream_of_windows(card: SequenceCard, config: RetrainParams) -> WindowStream:
    """The training windows in random order."""
    draws = generator(config.seed, "train batches")
    return WindowStream(
        windows_of(card, "train"), config.batch_size, draws, count=config.windows, device=device()
    )


def stream_of_text(card: SequenceCard, config: RetrainParams) -> TrackStream:
    """The training text in tracks."""
    draws = generator(config.seed, "train batches")
    return TrackStream(
        read_tokens(card, "train"),
        config.batch_size,
        card.chunk,
        draws,
        count=config.windows,
        device=device(),
    )


def halves(windows: Windows) -> tuple[Tensor, Tensor]:
    """The windows that train the weights, and those that train alpha, as numbers of cases.

    Neighbouring windows share most of their rows, so the series are cut into blocks as long as a window, which go to one
    half and the other in turn. Where there are too few rows for that, every second window does.
    """
    block = windows.shape.lookback + windows.shape.horizon
    cases = torch.arange(len(windows))
    for size in (block, 1):
        even = (windows.origins // size) % 2 == 0
        if min(int(even.sum()), len(cases) - int(even.sum())) >= len(cases) // 4:
            break
    return cases[even], cases[~even]


def window_loaders(card: SequenceCard, config: SearchParams) -> Loaders:
    """One half of the training windows trains the weights, the other half alpha; the split val gives the scores.

    ``search.windows`` of them are drawn per epoch, half of them for alpha. Single-level search has one stream over all.
    """
    windows, val, at = windows_of(card, "train"), windows_of(card, "val"), device()
    if len(windows) < 4:
        raise UserError(
            f"{len(windows)} training windows are too few to search with; add rows, or lower data.lookback"
        )
    apart, count = needs_architecture_batches(config), config.windows
    own, others = halves(windows) if apart else (torch.arange(len(windows)), None)
    count = count // 2 if apart and count is not None else count

    def stream(name: str, cases: Tensor) -> WindowStream:
        draws = generator(config.seed, name)
        return WindowStream(windows, config.batch_size, draws, cases=cases, count=count, device=at)

    # Shuffled, because the curvature is measured on the first windows.
    order = torch.randperm(len(val), generator=generator(config.seed, "validation order"))
    return Loaders(
        stream("train batches", own),
        None if others is None else stream("architecture batches", others),
        valid=lambda: windows_in_order(val, EVALUATION_BATCH, at, order),
        calibration=tuple,  # there are no running statistics
    )


def chunk_loaders(card: SequenceCard, config: SearchParams) -> Loaders:
    """The first half of the training text trains the weights, the second alpha; the split val gives the scores.

    Chunks are taken by themselves, with a state of zeros at their beginning.
    """
    tokens, val, at = read_tokens(card, "train"), read_tokens(card, "val"), device()
    apart, count = needs_architecture_batches(config), config.windows
    middle = len(tokens) // 2
    count = count // 2 if apart and count is not None else count

    def stream(name: str, part: Tensor) -> ChunkStream:
        draws = generator(config.seed, name)
        return ChunkStream(part, config.batch_size, card.chunk, draws, count=count, device=at)

    return Loaders(
        stream("train batches", tokens[:middle] if apart else tokens),
        stream("architecture batches", tokens[middle:]) if apart else None,
        valid=partial(chunks_in_order, val, EVALUATION_BATCH, card.chunk, at),
        calibration=tuple,
    )
