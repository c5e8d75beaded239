"""Texts become tokens that are the text again, with a vocabulary from the training part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.sequences.data import UNKNOWN
from stages.sequences.prepare import text as texts
from tests.stages.sequences.making import Prepared, prepared, refusal

TEXT = "It was the best of times, it was the worst of times;\nit was the age of wisdom.\n" * 40


def made_of(folder: Path, content: str | bytes, **changes: object) -> Prepared:
    return prepared(folder, content, "book.txt", name="text", chunk=8, **changes)


def read_back(made: Prepared) -> list[str]:
    return [str(made.card.vocabulary[token]) for token in made["tokens"]]


def test_characters(tmp_path: Path) -> None:
    made = made_of(tmp_path, TEXT, unit="characters")
    assert "".join(read_back(made)) == TEXT
    assert set(made.card.vocabulary[1:]) == set(TEXT)
    assert made.card.bounds == [round(0.6 * len(TEXT)), round(0.8 * len(TEXT)), len(TEXT)]
    assert (made["characters"] == 1).all() and made["tokens"].dtype == np.int32
    assert made.card.counts == {
        "train": (made.card.bounds[0] - 1) // 8,
        "val": (made.card.bounds[1] - made.card.bounds[0] - 1) // 8,
        "test": (len(TEXT) - made.card.bounds[1] - 1) // 8,
    }


def test_words_and_what_is_between_them(tmp_path: Path) -> None:
    made = made_of(tmp_path, TEXT, unit="words")
    assert "".join(read_back(made)) == TEXT
    assert {"times", ",", ";\n"[0], " ", "worst"} <= set(made.card.vocabulary)
    assert made["characters"].sum() == len(TEXT)
    np.testing.assert_array_equal(made["characters"], made["lengths"][made["tokens"]])


def test_the_vocabulary_is_that_of_the_training_part(tmp_path: Path) -> None:
    made = made_of(tmp_path, TEXT + "ZZ", unit="characters")
    assert "Z" not in made.card.vocabulary
    assert made["tokens"][-2:].tolist() == [UNKNOWN, UNKNOWN]
    assert made.card.notices() == [
        f"2 characters ({2 / (len(TEXT) + 2 - made.card.bounds[0]):.2%}) of validation and test are not in the vocabulary of"
        " the training part"
    ]
    few = made_of(tmp_path, TEXT, unit="words", vocabulary=5)
    assert len(few.card.vocabulary) == 5 and few.card.vocabulary[1] == " "
    assert few["characters"].sum() == len(TEXT), "unknown words count with their own letters"
    assert (few["tokens"] == UNKNOWN).any()


def test_line_ends_and_marks_of_other_systems(tmp_path: Path) -> None:
    plain = made_of(tmp_path, TEXT, unit="characters")
    other = made_of(tmp_path, b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(), unit="characters")
    assert plain.card == other.card


def test_what_is_no_text_is_refused(tmp_path: Path, monkeypatch) -> None:
    def line(content: str | bytes) -> str:
        return refusal(tmp_path, content, "book.txt", name="text", chunk=8)

    assert "book.txt is empty" in line(" \n")
    assert "book.txt is UTF-16" in line(TEXT.encode("utf-16"))
    assert "book.txt, line 2: these bytes are no UTF-8" in line("ok\nä".encode("latin-1"))
    assert "the train part has 12 characters, too few for data.chunk (8)" in line("x" * 20)
    assert "which is not there" in refusal(tmp_path, tmp_path / "none.txt", name="text")
    monkeypatch.setattr(texts, "MOST_BYTES", 100)
    assert "MB are the most that is read" in line(TEXT)
