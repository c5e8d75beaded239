"""The model card: what a version is, how it was tested, what it cost, where it ends; for a reader without the code.

Pictures are linked as they lie in artifacts/ and beside the registered model. The description of the version in MLflow is
the same text without them, as far as the registry has room.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from models.images.genotype import from_json
from stages.images.scores import Scores, calibration, confusion
from stages.params import Params
from stages.plumbing.files import CARD, DATA, GENOTYPE, RETRAIN, SEARCH, read_json
from stages.registry.gate import Evidence, comparison

_ROOM = 5000  # characters of a version's description in an SQL registry
_MATRIX = 12  # classes up to which the confusion matrix is printed whole
_ROWS = 10  # of tables that would go on
_FEW = 1000  # test images below which the card says how little they prove

# What the sources of the data say of its use, as far as is known.
_LICENCES = {
    "digits": "CC BY 4.0 (UCI Machine Learning Repository, Optical Recognition of Handwritten Digits)",
    "cifar10": "none stated by its authors, who ask to be cited (Krizhevsky 2009)",
    "cifar100": "none stated by its authors, who ask to be cited (Krizhevsky 2009)",
    "svhn": "for non-commercial use only (Netzer et al. 2011)",
    "fashion_mnist": "MIT (Zalando Research)",
}

Report = Mapping[str, Any]  # registry.json


def sections(
    report: Report, evidence: Evidence, params: Params, exported: Mapping[str, Any]
) -> dict[str, str]:
    """Title -> Markdown, in reading order; the first has no title. ``report`` is what registry.json will hold."""
    data, scores = read_json(DATA / "data.json"), evidence.challenger
    return {
        "": _head(report, data, len(scores.labels)),
        "Against the champion": _comparison(report, evidence),
        "What it is": _network(params, data, exported),
        "Data": _data(data, params),
        "Test": _test(scores, data["classes"]),
        "Confidence": _confidence(scores),
        "Speed and size": _cost(report, exported),
        "Limits": _limits(scores, data),
        "Where it comes from": _origin(report),
        "Cells": _cells(),
    }


def document(parts: Mapping[str, str]) -> str:
    """The whole card."""
    return "\n\n".join(_with_title(title, text) for title, text in parts.items()) + "\n"


def description(parts: Mapping[str, str]) -> str:
    """The card without pictures, shortened by whole sections to what a registry takes."""
    end = f"\n\n*Pictures and the rest: `{CARD.name}` among the version's artifacts.*\n"
    kept = ""
    for title, text in parts.items():
        lines = [line for line in text.splitlines() if not line.startswith("![")]
        section = _with_title(title, "\n".join(lines).strip())
        if len(kept) + len(section) + len(end) + 2 <= _ROOM:
            kept = f"{kept}\n\n{section}" if kept else section
    return kept + end


def _with_title(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if title else text


def _head(report: Report, data: Mapping[str, Any], images: int) -> str:
    height, width, channels = data["image_shape"]
    return (
        f"# {report['model']}, version {report['version']}\n\n"
        f"Tells {len(data['classes'])} classes of {'colour' if channels == 3 else 'grey'} images of {height} x {width} pixels"
        f" apart; right on {report['test_accuracy']:.2%} of {images} test images.\n\n"
        f"**{report['reason'][0].upper()}{report['reason'][1:]}.**"
    )


def _comparison(report: Report, evidence: Evidence) -> str:
    found, champion = comparison(evidence), evidence.champion
    if champion is None:
        return "There was no champion to compare with."
    if found is None or champion.scores is None:
        return f"Not compared: {champion.trouble}."
    ours, theirs = evidence.challenger, champion.scores
    rows = [
        ("test accuracy", f"{ours.accuracy:.2%}", f"{theirs.accuracy:.2%}"),
        ("images that only it recognized", str(found.only_challenger), str(found.only_champion)),
        ("milliseconds an image", f"{ours.latency_ms:.2f}", f"{theirs.latency_ms:.2f}"),
        ("megabytes", f"{ours.size_bytes / 1e6:.2f}", f"{theirs.size_bytes / 1e6:.2f}"),
    ]
    noise = "is more than noise" if found.exceeds_noise else "may be noise"
    return (
        _table(("", "this version", f"version {champion.version}"), rows)
        + f"\n\nBoth answered the same images, one after the other on one machine. The difference {noise}: McNemar's exact test"
        f" gives p = {found.p_value:.2g}."
    )


def _network(params: Params, data: Mapping[str, Any], exported: Mapping[str, Any]) -> str:
    height, width, channels = data["image_shape"]
    search, retrain = params.search, params.retrain
    return "\n".join(
        [
            f"- A convolutional network whose cells were found by {search.strategy} in the space {search.space}"
            f" ({search.epochs} epochs, seed {search.seed}), then trained from scratch ({retrain.epochs} epochs,"
            f" {retrain.channels} channels, {retrain.cells} cells, seed {retrain.seed}).",
            f"- {exported['params']:,} parameters, {exported['macs']:,} multiply-adds an image.",
            f"- Input `image`: uint8 (batch, {height}, {width}, {channels}), as decoded; it normalizes itself. Output"
            f" `probabilities`: float32 (batch, {len(data['classes'])}).",
            f"- Classes, in this order: {_listed(data['classes'])}.",
        ]
    )


def _data(data: Mapping[str, Any], params: Params) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in data["counts"].items())
    return "\n".join(
        [
            f"- `{data['name']}`: {counts} images; SHA-256 `{data['sha256']}`.",
            f"- Licence: {_LICENCES.get(params.data.name, 'not known; it is for whoever collected the images to say')}.",
        ]
    )


def _test(scores: Scores, classes: Sequence[str]) -> str:
    counts = confusion(scores)
    images, right = counts.sum(axis=1), counts.diagonal()
    rows = [
        (_cell(name), str(total), f"{hit / total:.1%}" if total else "", _mistaken(row, number, classes))
        for number, (name, total, hit, row) in enumerate(zip(classes, images, right, counts, strict=True))
    ]
    worst = sorted(range(len(rows)), key=lambda number: right[number] / max(images[number], 1))
    shown = sorted(worst[:_ROWS]) if len(rows) > _MATRIX else range(len(rows))
    parts = [
        _table(("class", "images", "recognized", "most often taken for"), [rows[number] for number in shown]),
    ]
    if len(rows) > _MATRIX:
        parts.insert(0, f"The {_ROWS} of {len(rows)} classes that are recognized least:")
    else:
        header = ("actual \\ predicted", *map(_cell, classes))
        matrix = [
            (_cell(name), *(str(count or "") for count in row.tolist()))
            for name, row in zip(classes, counts, strict=True)
        ]
        parts += ["Confusion matrix:", _table(header, matrix)]
    return "\n\n".join([*parts, f"![Confusion matrix]({RETRAIN.name}/confusion.png)"])


def _mistaken(row: np.ndarray, actual: int, classes: Sequence[str]) -> str:
    """The class that images of ``actual`` are most often taken for, with the count."""
    wrong = row.copy()
    wrong[actual] = 0
    return f"{_cell(classes[int(wrong.argmax())])} ({wrong.max()})" if wrong.any() else ""


def _confidence(scores: Scores) -> str:
    found = calibration(scores)
    rows = [(f"{sure:.1%}", f"{right:.1%}", str(count)) for sure, right, count in found.bins]
    sure, right = float(scores.probabilities.max(axis=1).mean()), scores.accuracy
    bias = "surer than it may be" if sure > right else "less sure than it could be"
    return (
        f"Expected calibration error {found.error:.3f} (15 bins): it is {sure:.1%} sure on average, {bias} with"
        f" {right:.1%} right.\n\n" + _table(("as sure as", "was right", "images"), rows)
    )


def _cost(report: Report, exported: Mapping[str, Any]) -> str:
    batch, int8 = exported["latency_ms"]["onnxruntime_batch_64"], report["int8"]
    images, others = exported["test_images"], exported["disagreements"]
    same = f"all {images}" if not others else f"{images - others} of {images}"
    lines = [
        f"- One image: {report['latency_ms']:.2f} ms (median, ONNX Runtime on the CPU of the machine that registered it);"
        f" 64 at once: {batch:.1f} ms at export.",
        f"- `model.onnx`: {report['size_bytes'] / 1e6:.2f} MB.",
        f"- Agreement with torch: the same class for {same} test images, probabilities within"
        f" {exported['largest_difference']:.1e}.",
    ]
    if int8:
        state = "included as `model.int8.onnx`" if int8["included"] else "left out"
        lines.append(f"- int8: {state}; test accuracy {int8['test_accuracy']:.2%}; {int8['reason']}.")
    return "\n".join(lines)


def _limits(scores: Scores, data: Mapping[str, Any]) -> str:
    counts = confusion(scores)
    shares = counts.diagonal() / np.maximum(counts.sum(axis=1), 1)
    worst, images = int(shares.argmin()), len(scores.labels)
    margin = 1.96 * (scores.accuracy * (1 - scores.accuracy) / images) ** 0.5
    height, width, _ = data["image_shape"]
    lines = [
        "- It knows its classes and nothing else: any other image gets one of them too, now and then with confidence.",
        f"- Images of another size are resized to {height} x {width}; detail below that is lost.",
        f"- Weakest class: {_cell(data['classes'][worst])}, {shares[worst]:.1%} recognized.",
        "- Not tested: images from other sources, damaged or adversarial ones, and fairness between groups of people.",
    ]
    if images < _FEW:
        lines.insert(
            1, f"- {images} test images prove little: accuracy {scores.accuracy:.1%} ± {margin:.1%} (95%)."
        )
    return "\n".join(lines)


def _origin(report: Report) -> str:
    rows = [
        ("git commit", report["git_commit"]),
        ("data", report["data_sha256"]),
        ("test images, labels and classes", report["test_sha256"]),
        ("`dvc.lock`", report["dvc_lock_sha256"]),
        ("file, with its name", report["model_sha256"]),
        ("Prefect flow run", report["prefect_flow_run"]),
        *((f"run of {stage}", run_id) for stage, run_id in report["runs"].items()),
    ]
    gap = read_json(SEARCH / "summary.json")["discretization_gap"]
    return (
        _table(("", ""), [(name, f"`{value}`") for name, value in rows if value])
        + f"\n\nDiscretization gap of the search: {gap:.3f}. All settings: `params.yaml` beside this card, and the tag `settings`."
    )


def _cells() -> str:
    content = read_json(GENOTYPE / "genotype.json")
    pictures = [
        f"![The cell {path.stem}]({GENOTYPE.name}/{path.name})" for path in sorted(GENOTYPE.glob("*.png"))
    ]
    groups = ", ".join(from_json(content).groups)
    return "\n\n".join([*pictures, f"Genotype ({groups}):", f"```json\n{json.dumps(content)}\n```"])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    line: Callable[[Sequence[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])


def _cell(text: str) -> str:
    """A class's name, whatever it is called, as the text of a table's cell."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|`*_<>[]":
        plain = plain.replace(sign, f"\\{sign}")
    return plain or "(empty)"


def _listed(classes: Sequence[str]) -> str:
    shown = ", ".join(map(_cell, classes[: 2 * _ROWS]))
    return shown if len(classes) <= 2 * _ROWS else f"{shown} and {len(classes) - 2 * _ROWS} more"
