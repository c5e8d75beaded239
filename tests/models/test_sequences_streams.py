from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import InvalidInput
from models.sequences.skeleton import SeriesShape
from models.sequences.streams import (
    ChunkStream,
    TrackStream,
    Windows,
    WindowStream,
    tracks_in_order,
    windows_in_order,
)
from models.sequences.task import SeriesCriterion, TextCriterion
from models.training.ahead import Stream
from models.training.seeds import generator

CPU = torch.device("cpu")
SHAPE = SeriesShape(lookback=4, horizon=2, variables=3, targets=2)


def windows(cases: int = 10) -> Windows:
    values = torch.arange(60, dtype=torch.float32).reshape(20, 3)
    return Windows(
        values=values,
        origins=torch.arange(cases),
        factors=torch.arange(2 * cases, dtype=torch.float32).reshape(cases, 2),
        mean=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        std=torch.tensor([2.0, 4.0, 1.0], dtype=torch.float64),
        shape=SHAPE,
    )


def test_a_batch_has_the_standardized_window_the_truth_and_the_factors() -> None:
    made = windows()
    x, target = made.batch(torch.tensor([3, 7]), CPU)
    standardized = (made.values - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([2.0, 4.0, 1.0])
    assert torch.equal(x, torch.stack([standardized[3:7], standardized[7:11]]))
    assert torch.equal(target[:, :2], torch.stack([standardized[7:9, :2], standardized[11:13, :2]]))
    assert torch.equal(target[:, 2], torch.tensor([[6.0, 7.0], [14.0, 15.0]]))


def test_large_values_are_standardized_without_loss() -> None:
    """float32 has steps of 8 at 1e8; in float32, the mean alone would be off by up to 4."""
    values = torch.tensor([[1e8], [1e8 + 8], [1e8 + 16]], dtype=torch.float32)
    made = Windows(
        values,
        torch.tensor([0]),
        torch.ones(1, 1),
        mean=torch.tensor([1e8 + 3], dtype=torch.float64),
        std=torch.tensor([4.0], dtype=torch.float64),
        shape=SeriesShape(2, 1, 1, 1),
    )
    x, target = made.batch(torch.tensor([0]), CPU)
    assert x.flatten().tolist() == [-0.75, 1.25]
    assert target.flatten().tolist() == [3.25, 1.0]


def test_the_measure_is_the_mase_of_the_textbook() -> None:
    torch.manual_seed(0)
    _, target = next(windows_in_order(windows(), 10, CPU))
    forecast = torch.randn(10, 2, 2)
    errors = np.abs(forecast.numpy() - target[:, :2].numpy())
    mase = [(errors[case] * target[case, 2].numpy()).mean() for case in range(10)]
    assert float(SeriesCriterion().measures(forecast, target)["mase"]) == pytest.approx(sum(mase), rel=1e-6)


def test_bits_are_those_of_the_probabilities() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    bits = -logits.softmax(dim=2).gather(2, target[..., None]).log2().sum()
    found = TextCriterion(torch.full((7,), 2.5)).measures(logits, target)["bits_per_character"]
    assert float(found) / 3 == pytest.approx(float(bits) / (15 * 2.5), rel=1e-5)


def test_passes_of_a_share_of_the_windows_go_through_all_of_them() -> None:
    stream = WindowStream(windows(), 2, generator(0, "test"), count=5)
    assert len(stream) == 2, "4 of the 5 windows fill batches"
    seen = [float(factor) for _ in range(5) for factor in next(stream)[1][:, 2, 0]]
    assert sorted(seen) == [2.0 * case for case in range(10)]
    assert len(WindowStream(windows(), 4, generator(0, "test"))) == 2


TEXT = torch.arange(100, dtype=torch.int32)
STREAMS: dict[str, Callable[[], Stream]] = {
    "windows": lambda: WindowStream(windows(), 3, generator(1, "test"), count=6),
    "chunks": lambda: ChunkStream(TEXT, 3, 8, generator(1, "test")),
    "tracks": lambda: TrackStream(TEXT, 3, 8, generator(1, "test")),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_where_it_was_saved(name: str) -> None:
    whole = STREAMS[name]()
    batches = [next(whole) for _ in range(9)]
    for done in range(9):
        first, second = STREAMS[name](), STREAMS[name]()
        for _ in range(done):
            next(first)
        second.load_state_dict(first.state_dict())
        assert all(same(next(second), batch) for batch in batches[done:])


def test_chunks_are_pieces_of_the_text_and_what_follows() -> None:
    stream = ChunkStream(TEXT, 3, 8, generator(1, "test"))
    assert len(stream) == 100 // 8 // 3
    tokens, following = next(stream)
    assert torch.equal(following, tokens + 1)
    assert all(torch.equal(row, torch.arange(int(row[0]), int(row[0]) + 8)) for row in tokens)
    with pytest.raises(InvalidInput, match="8 tokens, but a chunk needs 9; lower data.chunk"):
        ChunkStream(TEXT[:8], 3, 8, generator(1, "test"))


@pytest.mark.parametrize(("length", "tracks"), [(100, 3), (100, 1), (9, 4), (40, 4), (33, 2)])
def test_chunks_of_a_track_continue_each_other(length: int, tracks: int) -> None:
    stream = TrackStream(TEXT[:length], tracks, 8, generator(1, "test"))
    for _ in range(3):
        before = None
        for step in range(stream.steps):
            (tokens, first), following = next(stream)
            assert first == (step == 0)
            assert torch.equal(following, tokens + 1)
            assert before is None or torch.equal(tokens[:, 0], before + 1)
            before = tokens[:, -1]
    assert (next(stream)[0])[1], "then it begins anew"


def test_every_token_is_measured_once() -> None:
    batches = list(tracks_in_order(TEXT[:97], 3, 8, CPU))
    assert [first for (_, first), _ in batches] == [True, False, False, False]
    following = torch.cat([targets.flatten() for _, targets in batches])
    assert following.sort().values.tolist() == list(range(1, 97))
