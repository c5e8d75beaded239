"""report: one page that tells the whole run: what was found, how, how good it is, and how to repeat it.

The page needs nothing but itself: drawings and pictures are in it, and no script. Equal inputs give equal pages.
"""

from __future__ import annotations

import base64
import importlib.metadata
import io
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnxruntime
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML

from models.search.genotype import Genotype
from stages.discretize import read_alphas
from stages.errors import UserError
from stages.images import pictures
from stages.images.data import EVALUATION_BATCH, Data, read_data
from stages.params import Params
from stages.plumbing.files import (
    EXPORT,
    GENOTYPE,
    REGISTRY,
    REPORT,
    RETRAIN,
    SEARCH,
    read_json,
    read_rows,
    write_text,
)
from stages.plumbing.runtime import run
from stages.plumbing.tracking import StageRun, reported, stage_run
from stages.retrain import read_genotype

RUN_TAG = (
    "run_report"  # of the registered version: the run whose artifact the page is; the server looks for it
)
_THUMBNAIL = 128  # pixels, the longest side of an example
_CLASSES = 25  # with more, the confusion matrix is a picture
_CONFUSIONS = 10  # pairs of classes listed
_FIRST = ("model", "version", "promoted", "reason", "aliases", "champion_before", "test_accuracy")
_PACKAGES = ("torch", "torchvision", "numpy", "onnx", "onnxruntime", "mlflow", "dvc")


def main(params: Params) -> None:
    data, registry = read_data(), read_json(REGISTRY)
    page = render(
        {
            "registry": registry,
            "sentence": first_upper(str(registry.get("reason", ""))),
            "facts": facts(registry),
            "data": data.about,
            "search": search(params),
            "retrain": retrain(),
            "export": read_json(EXPORT / "export.json"),
            "test": test(data, params.report.examples),
            "repeat": repeat(params, registry),
        }
    )
    with stage_run("report", params.report.model_dump()) as tracked:
        write_text(REPORT, page)
        tracked.artifacts(REPORT)
        with reported():
            tell_registry(registry, tracked)
    print(f"report: {REPORT}, {len(page.encode()) / 1e6:.1f} MB")


def tell_registry(registry: Mapping[str, Any], tracked: StageRun) -> None:
    """Tags the version, where there is one, with the run that has its report."""
    if "version" in registry:
        tracked.mlflow.set_model_version_tag(registry["model"], str(registry["version"]), RUN_TAG, tracked.id)


def facts(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What registry.json says, flat, names as words, the verdict first; whatever it comes to hold is shown."""
    found: dict[str, Any] = {}
    for name in sorted(content, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
        value = content[name]
        words = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found |= facts(value, f"{words}: ")
        else:
            found[words] = (", ".join(map(str, value)) or None) if isinstance(value, list) else value
    return found


def search(params: Params) -> dict[str, Any]:
    """The cells, the curves, and how the mix moved."""
    space, relaxation, alphas = read_alphas()
    genotype = read_genotype(GENOTYPE / "genotype.json")
    history, summary = read_rows(SEARCH / "history.csv"), read_json(SEARCH / "summary.json")
    chosen = summary["epoch" if params.discretize.epoch == "last" else "best_epoch"]
    panels = {**pictures.LEARNING, **pictures.instability_panels(history)}
    return {
        "summary": summary,
        "epochs": len(history),
        "chosen": chosen,
        "cells": {group: drawn(pictures.cell, genotype, group) for group in genotype.groups},
        "panels": [drawn(pictures.panel, history, title, lines, chosen) for title, lines in panels.items()],
        "mixes": {
            group: drawn(pictures.mix, space, genotype, group, relaxation(alphas[group]).tolist(), chosen)
            for group in genotype.groups
        },
        "genotype": (GENOTYPE / "genotype.json").read_text(),
        "edges": {group: sentence(genotype, group) for group in genotype.groups},
    }


def sentence(genotype: Genotype, group: str) -> str:
    """The edges of a cell, for those who do not see its drawing."""
    return ", ".join(f"{src} to {dst} by {op}" for src, dst, op in genotype.groups[group])


def retrain() -> dict[str, Any]:
    """The curves and numbers of the retraining."""
    history, metrics = read_rows(RETRAIN / "history.csv"), read_json(RETRAIN / "metrics.json")
    return {
        "metrics": metrics,
        "epochs": len(history),
        "panels": [
            drawn(pictures.panel, history, title, lines, metrics["best_epoch"])
            for title, lines in pictures.LEARNING.items()
        ],
    }


def drawn(draw: Any, *rest: Any) -> Markup:
    return Markup(pictures.svg(draw, *rest))


def test(data: Data, count: int) -> dict[str, Any]:
    """The exported network's answers on the test set: confusion, and examples of right and wrong ones."""
    probabilities, labels = answers(data), data.test.labels.numpy()
    predicted, classes = probabilities.argmax(axis=1), data.classes
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    right = in_turn(np.flatnonzero(predicted == labels), labels)
    off_diagonal = np.where(np.eye(len(classes), dtype=bool), 0, counts)
    pairs = np.argsort(-off_diagonal, axis=None, kind="stable")[:_CONFUSIONS]

    def example(index: int) -> dict[str, Any]:
        return {
            "picture": png(data.test.images[index].numpy()),
            "is": classes[labels[index]],
            "answer": classes[predicted[index]],
            "sure": probabilities[index].max(),
        }

    return {
        "images": len(labels),
        "errors": len(wrong),
        "counts": counts.tolist() if len(classes) <= _CLASSES else None,
        "picture": None if len(classes) <= _CLASSES else encoded((RETRAIN / "confusion.png").read_bytes()),
        "confusions": [
            {
                "actual": classes[pair // len(classes)],
                "predicted": classes[pair % len(classes)],
                "count": many,
            }
            for pair in pairs.tolist()
            if (many := int(off_diagonal.flat[pair]))
        ],
        "wrong": [example(index) for index in wrong[:count].tolist()],
        "right": [example(index) for index in right[:count].tolist()],
        "small": max(data.image_shape[:2]) < _THUMBNAIL,
    }


def answers(data: Data) -> NDArray[np.float32]:
    """Probabilities (N, classes) of the test images, by the exported file."""
    path = EXPORT / "model.onnx"
    if not path.is_file():
        raise UserError(f"{path} is missing; `dvc repro export` makes it")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = data.test.images.numpy()
    batches = [images[n : n + EVALUATION_BATCH] for n in range(0, len(images), EVALUATION_BATCH)]
    return np.concatenate([np.asarray(session.run(None, {"image": batch})[0]) for batch in batches])


def in_turn(indices: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices with the classes taking turns: the first of every class, the second of every class, ..."""
    rank = np.zeros(len(indices), dtype=int)
    for label in np.unique(labels[indices]):
        of_class = labels[indices] == label
        rank[of_class] = np.arange(of_class.sum())
    return indices[np.lexsort((labels[indices], rank))]


def png(pixels: NDArray[np.uint8]) -> str:
    """An image (H, W, C) as a data address, made smaller where it is large."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return encoded(file.getvalue())


def encoded(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def repeat(params: Params, registry: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody needs who wants the same result."""
    settings = params.model_dump(exclude={"serve"})
    text = io.StringIO()
    YAML(typ="rt").dump(settings, text)
    return {
        "commit": registry.get("git_commit", "none").removesuffix("-dirty"),
        "dirty": registry.get("git_commit", "").endswith("-dirty"),
        "params": text.getvalue(),
        "seeds": {f"{name}.seed": section["seed"] for name, section in settings.items() if "seed" in section},
        "versions": {
            "Python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }


def render(content: Mapping[str, Any]) -> str:
    """The page; what is not there is not shown, and what is, is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number}
    return environment.get_template("report.html").render(content)


def first_upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def percent(share: float | None, digits: int = 1) -> str:
    return "none" if share is None else f"{100 * share:.{digits}f}%"


def number(value: Any) -> str:
    """Whole numbers with separators, others with four significant digits, everything else as it is."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(run("report", main))
