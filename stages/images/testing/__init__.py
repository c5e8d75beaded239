"""Evaluates retrained weights on the test images, in torch.

Torch and matplotlib are imported inside functions, because code that only runs exported files imports this package
too and should start quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.evaluation import Evaluation
from stages.images.data import read_card
from stages.images.params import Params
from stages.images.testing.cases import evaluation_of, in_batches, read_test_set
from stages.images.testing.classification import accuracy_by_class, confusion, never_recognized
from stages.plumbing.files import write_rows


def evaluate_weights(params: Params, weights: Path) -> Evaluation:
    from models.training.costs import count_parameters
    from stages.images.testing.with_torch import load_deployed, with_torch

    test, deployed = read_test_set(), load_deployed(params.retrain, weights)
    probabilities = in_batches(with_torch(deployed), test.images)
    return evaluation_of(probabilities, test, params=count_parameters(deployed))


def class_scores(evaluation: Evaluation) -> Mapping[str, float | None]:
    return accuracy_by_class(evaluation, read_card().classes)


def notices(evaluation: Evaluation) -> Sequence[str]:
    notice = never_recognized(evaluation, read_card().classes)
    return [notice] if notice else []


def write_results(folder: Path, evaluation: Evaluation) -> None:
    """The confusion matrix: ``confusion.csv``, with one row per image, and ``confusion.png``."""
    from stages.images.testing.pictures import draw_confusion

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
