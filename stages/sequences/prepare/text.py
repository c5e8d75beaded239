"""Turns a text into tokens: characters, or words with what is between them. Joined again, the tokens are the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.errors import UserError, of_system
from stages.plumbing.files import sha256_of
from stages.sequences.data import CHARACTERS, LENGTHS, TOKENS, UNKNOWN, SequenceCard
from stages.sequences.params import DataParams

MOST_BYTES = 200_000_000  # of a file; these take about 4 GB of memory by characters
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
_UNKNOWN_TEXT = "\ufffd"  # the entry that stands for everything that the training part does not have


def prepare_text(data: DataParams, path: Path, folder: Path) -> SequenceCard:
    """Writes a text as tokens. Raises UserError for files that are no text or too short."""
    pieces = _pieces(read_text(path, data.root), data.unit)
    bounds = [
        round(len(pieces) * (1 - data.valid_fraction - data.test_fraction)),
        round(len(pieces) * (1 - data.test_fraction)),
        len(pieces),
    ]
    edges = [0, *bounds]
    counts = {
        part: (end - begin - 1) // data.chunk
        for part, begin, end in zip(("train", "val", "test"), edges, bounds, strict=False)
    }
    for part, count in counts.items():
        if count < (2 if part == "train" else 1):
            raise UserError(
                f"{data.root}: the {part} part has {edges[list(counts).index(part) + 1] - edges[list(counts).index(part)]}"
                f" {data.unit}, too few for data.chunk ({data.chunk}); lower it, or give a longer text"
            )
    vocabulary = _vocabulary(pieces[: bounds[0]], data)
    number_of = {entry: number for number, entry in enumerate(vocabulary)}
    tokens = np.fromiter((number_of.get(piece, UNKNOWN) for piece in pieces), np.int32, len(pieces))
    np.save(folder / TOKENS, tokens)
    np.save(folder / CHARACTERS, np.fromiter(map(len, pieces), np.int32, len(pieces)))
    np.save(folder / LENGTHS, np.fromiter(map(len, vocabulary), np.int32, len(vocabulary)))
    unknown = int((tokens[bounds[0] :] == UNKNOWN).sum())
    remarks = []
    if unknown:
        share = unknown / (len(pieces) - bounds[0])
        remarks.append(
            f"{unknown} {data.unit} ({share:.2%}) of validation and test are not in the vocabulary of the training part"
        )
    return SequenceCard(
        name=data.name,
        counts=counts,
        sha256=sha256_of(*sorted(folder.iterdir())),
        kind="text",
        unit=data.unit,
        vocabulary=vocabulary,
        chunk=data.chunk,
        bounds=bounds,
        remarks=remarks,
    )


def read_text(path: Path, where: str) -> str:
    """The text of a UTF-8 file, whose line ends become "\\n". Raises UserError."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(
                f"{where} has {size / 1e6:.0f} MB; {MOST_BYTES // 10**6} MB are the most that is read, so give a part"
            )
        content = path.read_bytes()
    except OSError as error:
        raise of_system(error, where) or UserError(f"{where} cannot be read ({error})") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{where} is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: these bytes are no UTF-8; save the file as UTF-8") from None
    if not text.strip():
        raise UserError(f"{where} is empty; give a text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _pieces(text: str, unit: str) -> Sequence[str]:
    return text if unit == "characters" else _WORDS.findall(text)


def _vocabulary(pieces: Sequence[str], data: DataParams) -> list[str]:
    """The entries, with that for everything unknown first: all characters, or the most frequent words."""
    counts = Counter(pieces)
    counts.pop(_UNKNOWN_TEXT, None)
    if data.unit == "characters":
        return [_UNKNOWN_TEXT, *sorted(counts)]
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return [_UNKNOWN_TEXT, *ranked[: data.vocabulary - 1]]
