"""The test chunks of a text, and one way to evaluate predictions of them, whatever makes the predictions.

A network reads the test text from its beginning and keeps its state from chunk to chunk. So that this goes faster, the text
is read in several tracks at once; each starts with the chunk before it, which is not counted.

Axes: B tracks, T tokens of a chunk, C tokens of the vocabulary, N chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.sequences.data import SequenceCard, cases_sha256, read_text
from stages.sequences.testing.series import FOUND

_TRACKS, _CHUNKS_PER_TRACK = 32, 16  # at most, and at least

# Tokens (B, T) int64 and the state (B, S), or None for the beginning -> logits (B, T, C) and the next state.
Answer = Callable[
    [NDArray[np.int64], NDArray[np.float32] | None], tuple[NDArray[np.float32], NDArray[np.float32]]
]


@dataclass(frozen=True, eq=False)
class TestText:
    """The text on which every network is tested."""

    tokens: NDArray[np.int64]  # (N T + 1,)
    characters_N: NDArray[np.int64]  # that each chunk's predicted tokens stand for
    card: SequenceCard

    def __len__(self) -> int:
        return len(self.characters_N)

    def chunks(self, cases: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens (B, T) of some chunks, and those that follow each."""
        chunk = self.card.chunk
        found = self.tokens[cases[:, None] * chunk + np.arange(chunk + 1)]
        return found[:, :-1], found[:, 1:]


def read_test_text(card: SequenceCard) -> TestText:
    """The test split that prepare has written. Raises UserError when a file is missing or damaged."""
    tokens, characters = read_text(card, "test")
    count = (len(tokens) - 1) // card.chunk
    used = count * card.chunk + 1
    characters_N = characters[1:used].astype(np.int64).reshape(count, card.chunk).sum(axis=1)
    return TestText(tokens[:used].astype(np.int64), characters_N, card)


def bits_of(answer: Answer, test: TestText) -> NDArray[np.float64]:
    """The bits (N,) that each chunk takes."""
    count = len(test)
    tracks = max(1, min(_TRACKS, count // _CHUNKS_PER_TRACK))
    length = -(-count // tracks)
    starts = np.arange(0, count, length)
    bits = np.zeros(count)
    state = None
    if len(starts) > 1:
        # The first track has nothing before it, so its state begins anew.
        _, warm = answer(test.chunks(starts[1:] - 1)[0], None)
        state = np.concatenate([np.zeros_like(warm[:1]), warm])
    for position in range(length):
        cases = starts + position
        cases = cases[cases < count]
        tokens, following = test.chunks(cases)
        logits, state = answer(tokens, None if state is None else state[: len(cases)])
        bits[cases] = chunk_bits(logits, following)
    return bits


def chunk_bits(logits: NDArray[np.float32], following: NDArray[np.int64]) -> NDArray[np.float64]:
    """- log2 of the probabilities of the tokens (B, T) that follow, summed over each chunk."""
    logits64 = logits.astype(np.float64)
    largest = logits64.max(axis=2, keepdims=True)
    total = largest[..., 0] + np.log(np.exp(logits64 - largest).sum(axis=2))
    chosen = np.take_along_axis(logits64, following[..., None], axis=2)[..., 0]
    return (total - chosen).sum(axis=1) / np.log(2)


def evaluation_of(
    bits_N: NDArray[np.float64],
    test: TestText,
    others: Mapping[str, tuple[NDArray[np.float64], int]] | None = None,
    **costs: float,
) -> Evaluation:
    """Evaluates the bits of chunks, beside those of other networks with their parameters.

    The value of a chunk is its bits over the mean number of characters in a chunk, so that the mean of the values is all bits
    over all characters. ``details``: for the found network and each other NAME, ``bits_per_character.NAME`` (N,) and
    ``parameters.NAME`` (1,).
    """
    every = {FOUND: (bits_N, int(costs.get("params", 0))), **(others or {})}
    details: dict[str, NDArray[Any]] = {}
    for name, (bits, parameters) in every.items():
        details[f"bits_per_character.{name}"] = bits / test.characters_N.mean()
        details[f"parameters.{name}"] = np.array([parameters])
    per_case = details[f"bits_per_character.{FOUND}"]
    return Evaluation(float(per_case.mean()), per_case, cases_sha256(test.card), costs, details)
