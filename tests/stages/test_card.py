"""The model card holds together whatever the classes are called and however many there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stages.images.scores import Scores
from stages.plumbing.settings import load
from stages.register import outcome
from stages.registry import card as cards
from stages.registry.gate import Champion, Evidence, decide

ODD = ["cat (wild)", "a|b", "50%", "*x*", "", "new\nline", "猫", "[link](x)", "`code`", "<b>bold</b>"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts that a card reads, and no stage has to run for."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "genotype", "search", "retrain"):
        (tmp_path / "artifacts" / folder).mkdir(parents=True)
    arch = {"space": "nasbench201", "arch_str": "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"}
    Path("artifacts/genotype/genotype.json").write_text(json.dumps(arch))
    Path("artifacts/genotype/cell.png").touch()
    Path("artifacts/search/summary.json").write_text('{"discretization_gap": 0.1}')
    return tmp_path


def card(classes: list[str], champion: Champion | None = None) -> dict[str, str]:
    """The sections for a network that recognizes two of three images."""
    data = {"name": "imagefolder", "classes": classes, "image_shape": [32, 32, 3], "sha256": "d" * 64}
    Path("artifacts/data/data.json").write_text(json.dumps({**data, "counts": {"train": 9, "test": 3}}))
    evidence = Evidence(scores(len(classes), 2 / 3), champion, 1e-6, 0, True)
    params = load(Path(__file__).parents[2] / "params.yaml")
    params = params.model_copy(update={"data": params.data.model_copy(update={"name": "imagefolder"})})
    keys = ("git_commit", "data_sha256", "test_sha256", "dvc_lock_sha256", "model_sha256", "prefect_flow_run")
    report = {
        **outcome(decide(evidence, params.registry), 2, 2),
        **dict.fromkeys(keys, "f" * 64),
        "model": "m",
        "version": 2,
        "runs": {"search": None},
        "int8": None,
    }
    exported = {
        "params": 1000,
        "macs": 2000,
        "latency_ms": {"onnxruntime_batch_64": 1.0},
        "disagreements": 0,
        "test_images": 3 * len(classes),
        "largest_difference": 1e-6,
    }
    return cards.sections(report, evidence, params, exported)


def scores(classes: int, right: float) -> Scores:
    """Three images a class, of which this share is recognized, the others as the next class."""
    labels = np.arange(3 * classes) % classes
    given = np.where(np.arange(3 * classes) < right * 3 * classes, labels, (labels + 1) % classes)
    return Scores(0.9 * np.eye(classes, dtype=np.float32)[given], labels, 10**6, 1.0)


def rows(text: str) -> list[list[str]]:
    """The tables' rows, split where Markdown splits them."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_classes_may_be_called_anything(project: Path) -> None:
    sections = card(ODD)
    assert {len(row) for row in rows(sections["Test"])} == {4, len(ODD) + 1}
    assert len(rows(sections["Test"])) == 2 + len(ODD) + 2 + len(ODD)
    text = cards.document(sections)
    assert "not known" in sections["Data"]
    for sign in ("| a|b |", "<b>", "[link](x)"):
        assert sign not in text
    (worst,) = re.findall(r"Weakest class: (.*), 66.7% recognized", sections["Limits"])
    assert worst == "cat (wild)"


def test_the_description_fits_and_has_no_pictures(project: Path) -> None:
    for names in (ODD, [f"a class with quite a long name, number {n}" for n in range(300)]):
        sections = card(names)
        description = cards.description(sections)
        assert len(description) <= 5000
        assert "![" not in description
        assert description.startswith("# m, version 2\n")
        assert "## Limits" in description
        assert "![The cell cell](genotype/cell.png)" in cards.document(sections)


def test_the_comparison_says_what_is_noise(project: Path) -> None:
    classes = [str(n) for n in range(10)]
    better = card(classes, Champion(1, scores(10, 0.6)))["Against the champion"]
    assert "| test accuracy | 66.67% | 60.00% |" in better
    assert "The difference may be noise: McNemar's exact test gives p = 0.5." in better  # 2 images of 30
    much = card(classes, Champion(1, scores(10, 0.2)))["Against the champion"]
    assert "more than noise" in much
    none = card(classes, Champion(1, None, "it was tested on other images"))["Against the champion"]
    assert none == "Not compared: it was tested on other images."
