"""Drawings and words about a classifier of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.images.classification import confusion
from stages.images.data import read_card
from stages.images.views.pictures import draw_confusion
from stages.plumbing.files import write_rows

if TYPE_CHECKING:
    from stages.evaluation import Evaluation
    from stages.images.params import Params


def draw_retrained(folder: Path, evaluation: Evaluation) -> None:
    """The confusion matrix: ``confusion.csv``, a row per image, and ``confusion.png``."""
    classes = read_card().classes
    counts = confusion(evaluation, len(classes))
    pairs = [
        {"actual": classes[actual], "predicted": classes[predicted]}
        for actual, row in enumerate(counts.tolist())
        for predicted, count in enumerate(row)
        for _ in range(count)
    ]
    write_rows(folder / "confusion.csv", pairs)
    draw_confusion(folder / "confusion.png", counts, classes)


def data_words() -> str:
    card = read_card()
    height, width, _ = card.image_shape
    counts = card.counts
    return (
        f"{card.name}, {counts['train']:,} training, {counts['val']:,} validation and {counts['test']:,} test images of"
        f" {height} × {width} pixels in {len(card.classes)} classes."
    )


def test_panel(params: Params, evaluation: Evaluation) -> Any:
    from stages.images.views.page import test_section  # the report only

    return test_section(evaluation, params.report.examples)
