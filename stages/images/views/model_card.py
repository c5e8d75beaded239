"""The model card's sections about an image classifier: classes, confusions, calibration and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.images.genotype import from_json
from stages.evaluation import Evaluation
from stages.images.data import read_card
from stages.images.params import BALANCED, METRIC, Params
from stages.images.testing.classification import calibration, confusion, never_recognized
from stages.intervals import in_words
from stages.plumbing.files import GENOTYPE, RETRAIN, read_json
from stages.records import ExportRecord
from stages.registry.card import TaskCard
from stages.registry.markdown import plain, table

_MATRIX = 12  # up to this many classes, the whole confusion matrix is printed
_ROWS = 10  # of longer tables
_LISTED = 20  # how many classes the contract names
_FEW = 1000  # with fewer test images, the card states how uncertain the accuracy is

# What the publishers of the data say about its use, as far as known.
_LICENCES = {
    "digits": "CC BY 4.0 (UCI Machine Learning Repository, Optical Recognition of Handwritten Digits)",
    "cifar10": "none stated by its authors, who ask to be cited (Krizhevsky 2009)",
    "cifar100": "none stated by its authors, who ask to be cited (Krizhevsky 2009)",
    "svhn": "for non-commercial use only (Netzer et al. 2011)",
    "fashion_mnist": "MIT (Zalando Research)",
}
_OWN_IMAGES = "not known; the collector of the images must state it"


def task_card(evaluation: Evaluation, params: Params) -> TaskCard:
    """The parts of the card that are about images."""
    about = read_card()
    classes = about.classes
    counts, notice = confusion(evaluation, len(classes)), never_recognized(evaluation, classes)
    return TaskCard(
        headline=_headline(evaluation, about.image_shape, len(classes)),
        description=_description(params),
        contract=_contract(about.image_shape, classes),
        licence=_LICENCES.get(params.data.name, _OWN_IMAGES),
        results={"Test": _by_class(counts, classes), "Confidence": _confidence(evaluation)},
        limits=_limits(evaluation, counts, about.image_shape, classes),
        groups=list(from_json(read_json(GENOTYPE / "genotype.json")).groups),
        throughput=_throughput,
        notices=[notice] if notice else [],
    )


def _headline(evaluation: Evaluation, shape: Sequence[int], classes: int) -> str:
    height, width, channels = shape
    return (
        f"Distinguishes {classes} classes of {'colour' if channels == 3 else 'grey'} images of {height} x {width}"
        f" pixels; correct for {METRIC.text(evaluation.score)} of {len(evaluation.per_case)} test images, with a"
        f" {BALANCED.words} of {BALANCED.text(BALANCED.score(evaluation))}."
    )


def _description(params: Params) -> str:
    search, retrain = params.search, params.retrain
    return (
        f"A convolutional network whose cells were found by {search.strategy} in the space {search.space}"
        f" ({search.epochs} epochs, seed {search.seed}) and that was then trained from scratch ({retrain.epochs}"
        f" epochs, {retrain.channels} channels, {retrain.cells} cells, seed {retrain.seed})."
    )


def _contract(shape: Sequence[int], classes: Sequence[str]) -> list[str]:
    height, width, channels = shape
    listed = ", ".join(map(plain, classes[:_LISTED]))
    more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
    return [
        f"Input `image`: uint8 (batch, {height}, {width}, {channels}), as decoded; the file contains the normalization."
        f" Output `probabilities`: float32 (batch, {len(classes)}).",
        f"Classes, in this order: {listed}{more}.",
    ]


def _by_class(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The results of each class and the confusion matrix, or only the weakest classes if there are many."""
    images, right = counts.sum(axis=1), counts.diagonal()
    rows = [
        (plain(name), str(total), f"{hit / total:.1%}" if total else "", _mistaken(row, number, classes))
        for number, (name, total, hit, row) in enumerate(zip(classes, images, right, counts, strict=True))
    ]
    header = ("class", "images", "recognized", "most often taken for")
    picture = f"![Confusion matrix]({RETRAIN.name}/confusion.png)"
    if len(rows) > _MATRIX:
        weakest = sorted(np.argsort(_shares(counts), kind="stable")[:_ROWS].tolist())
        first = f"The {_ROWS} classes (of {len(rows)}) that are recognized least often:"
        return "\n\n".join([first, table(header, [rows[number] for number in weakest]), picture])
    matrix = [
        (plain(name), *(str(count or "") for count in row.tolist()))
        for name, row in zip(classes, counts, strict=True)
    ]
    confused = table(("actual \\ predicted", *map(plain, classes)), matrix)
    return "\n\n".join([table(header, rows), "Confusion matrix:", confused, picture])


def _mistaken(row: NDArray[np.int64], actual: int, classes: Sequence[str]) -> str:
    """The class that images of ``actual`` are most often taken for, with the count."""
    wrong = row.copy()
    wrong[actual] = 0
    return f"{plain(classes[int(wrong.argmax())])} ({wrong.max()})" if wrong.any() else ""


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The recognized share of each class's images; infinite without images, so that the class is not the weakest."""
    images = counts.sum(axis=1)
    return np.where(images > 0, counts.diagonal() / np.maximum(images, 1), np.inf)


def _confidence(evaluation: Evaluation) -> str:
    found, right = calibration(evaluation), evaluation.score
    rows = [(f"{sure:.1%}", f"{share:.1%}", str(count)) for sure, share, count in found.bins]
    sure = float(evaluation.details["confidence"].mean())
    bias = "more confident than it should be" if sure > right else "less confident than it could be"
    return (
        f"Expected calibration error {found.error:.3f} (15 bins). The mean confidence is {sure:.1%} and the network"
        f" is right for {right:.1%} of the images, so the network is {bias}.\n\n{table(('confidence', 'right', 'images'), rows)}"
    )


def _throughput(exported: ExportRecord) -> str:
    return f"64 images at once: {exported.latency_ms['onnxruntime_batch_64']:.1f} ms at export"


def _limits(
    evaluation: Evaluation, counts: NDArray[np.int64], shape: Sequence[Any], classes: Sequence[str]
) -> list[str]:
    shares, images, accuracy = _shares(counts), len(evaluation.per_case), evaluation.score
    worst = int(shares.argmin())
    lines = [
        "The network knows only its classes. Any other image gets one of them, too, sometimes with high confidence.",
        f"Images of another size are resized to {shape[0]} x {shape[1]} pixels, which loses finer detail.",
        f"Weakest class: {plain(classes[worst])}, {shares[worst]:.1%} recognized.",
        "Not tested: images from other sources, damaged or adversarial images, and fairness between groups of people.",
    ]
    if images < _FEW:
        within = in_words(accuracy, images)
        few = f"{images} test images are few: the accuracy is {accuracy:.1%} (95% interval: {within})."
        lines.insert(1, few)
    return lines
