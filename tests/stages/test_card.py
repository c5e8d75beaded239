"""The model card is valid Markdown whatever the classes are called and however many there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stages.comparison import NOT_COMPARED, TITLE, ArmResult, ComparisonRecord
from stages.evaluation import Evaluation, Metric
from stages.images.data import Duplicates, ImageCard, read_card
from stages.images.params import METRIC as ACCURACY
from stages.images.params import Params as ImageParams
from stages.images.views.model_card import task_card
from stages.plumbing.settings import load
from stages.records import DataCard, ExportRecord
from stages.registry import card as cards
from stages.registry import verdict
from stages.registry.card import TaskCard
from stages.registry.gate import Champion, Evidence, decide
from stages.registry.markdown import plain
from stages.registry.record import Origin
from tests.stages.conftest import ROOT

ODD = ["cat (wild)", "a|b", "50%", "*x*", "", "new\nline", "猫", "[link](x)", "`code`", "<b>bold</b>"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts that a card reads, written without running a stage."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "genotype", "search", "retrain"):
        (tmp_path / "artifacts" / folder).mkdir(parents=True)
    arch = {"space": "nasbench201", "arch_str": "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"}
    Path("artifacts/genotype/genotype.json").write_text(json.dumps(arch))
    Path("artifacts/genotype/cell.png").touch()
    Path("artifacts/search/summary.json").write_text(json.dumps(SUMMARY))
    return tmp_path


SUMMARY = {
    "supernet_accuracy": 0.9,
    "discretized_accuracy": 0.8,
    "discretization_gap": 0.1,
    "epoch": 1,
    "valid_accuracy": 0.9,
    "best_epoch": 1,
    "best_valid_accuracy": 0.9,
}
UNDECIDED = "the search has decided next to nothing: 99% of *all*"
DATA = DataCard(name="mine", counts={"train": 9000, "test": 3}, sha256="d" * 64)
PARAMS = ImageParams.model_validate(load(ROOT / "params.yaml").model_dump())
ORIGIN = Origin(
    model_sha256="f" * 64,
    data_sha256="d" * 64,
    dvc_lock_sha256=None,
    git_commit="c" * 40,
    prefect_flow_run=None,
    runs={"search": None, "retrain": "r" * 32},
)


def document(
    classes: list[str], champion: Champion | None = None, *, images: int = 3, right: float = 2 / 3
) -> str:
    """The card of a network that recognizes the share ``right`` of ``images`` images per class."""
    write_card(classes, (32, 32, 3))
    params = PARAMS.model_copy(update={"data": PARAMS.data.model_copy(update={"name": "imagefolder"})})
    evaluation = answered(len(classes), right, images)
    return rendered(evaluation, ACCURACY, champion, task_card(evaluation, params), images * len(classes))


def write_card(classes: list[str], shape: tuple[int, int, int]) -> None:
    card = ImageCard(
        name="imagefolder",
        classes=classes,
        image_shape=shape,
        counts={"train": 9000, "test": 3},
        mean=[0.5] * shape[2],
        std=[0.2] * shape[2],
        mirror=True,
        sha256="d" * 64,
    )
    card.write(Path("artifacts/data/data.json"), ACCURACY)


def rendered(
    evaluation: Evaluation,
    metric: Metric,
    champion: Champion | None,
    task: TaskCard,
    cases: int,
    data: DataCard = DATA,
) -> str:
    evidence = Evidence(metric, "model.onnx", evaluation, champion, 1e-6, 0, True)
    judgement = decide(evidence, PARAMS.registry)
    record = verdict.record(
        judgement, "m", 2, 2, origin=ORIGIN, measures={}, int8=None, limits=PARAMS.registry
    )
    exported = ExportRecord(
        model_sha256="f" * 64,
        largest_difference=1e-6,
        disagreements=0,
        test_cases=cases,
        test_score=evaluation.score,
        threads=1,
        size_bytes=10**6,
        params=1000,
        macs=2000,
        latency_ms={"onnxruntime_batch_64": 1.0},
    )
    return cards.document(record, judgement, task, exported, data)


def card(classes: list[str], champion: Champion | None = None) -> dict[str, str]:
    return cards.sections(document(classes, champion))


def answered(classes: int, right: float, images: int = 3) -> Evaluation:
    """An evaluation in which this share of each class is recognized and the rest is taken for the next class."""
    total = images * classes
    labels = np.arange(total) % classes
    hits = np.arange(total) < right * total
    details = {
        "labels": labels,
        "predicted": np.where(hits, labels, (labels + 1) % classes),
        "confidence": np.full(total, 0.9, np.float32),
    }
    costs = {"latency_ms": 1.0, "size_bytes": 10**6}
    return Evaluation(float(hits.mean()), hits.astype(float), "same", costs, details)


def rows(text: str) -> list[list[str]]:
    """The tables' rows, split where Markdown splits them."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_a_search_that_decided_nothing_is_told_at_the_top(project: Path) -> None:
    assert "Notice:" not in document(["cat", "dog"])
    Path("artifacts/search/summary.json").write_text(json.dumps({**SUMMARY, "notice": UNDECIDED}))
    top = cards.sections(document(["cat", "dog"]))[""]
    assert f"**Notice: {plain(UNDECIDED)}.**" in top


def test_classes_may_be_called_anything(project: Path) -> None:
    text = document(ODD)
    sections = cards.sections(text)
    assert {len(row) for row in rows(sections["Test"])} == {4, len(ODD) + 1}
    assert len(rows(sections["Test"])) == 2 + len(ODD) + 2 + len(ODD)
    assert "not known" in sections["Data"]
    for sign in ("| a|b |", "<b>", "[link](x)"):
        assert sign not in text
    (worst,) = re.findall(r"Weakest class: (.*), 66.7% recognized", sections["Limits"])
    assert worst == "cat (wild)"


def test_the_description_fits_and_has_no_pictures(project: Path) -> None:
    for names in (ODD, [f"a class with quite a long name, number {n}" for n in range(300)]):
        text = document(names)
        description = cards.description(text)
        assert len(description) <= 5000
        assert "![" not in description
        assert description.startswith("# m, version 2\n")
        assert "## Limits" in description
        assert "![Architecture: cell](genotype/cell.png)" in text
        assert cards.pictures(text) == [Path("artifacts/genotype/cell.png")]


def test_the_comparison_says_what_is_noise(project: Path) -> None:
    classes = [str(n) for n in range(10)]
    better = card(classes, Champion(1, answered(10, 0.6)))["Against the champion"]
    assert "| test accuracy | 66.67% | 60.00% |" in better
    assert "The difference may be noise: McNemar's exact test gives p = 0.5." in better  # 2 images of 30
    assert "| images that only it got right | 2 | 0 |" in better
    much = card(classes, Champion(1, answered(10, 0.2)))["Against the champion"]
    assert "The difference is more than noise" in much
    none = card(classes, Champion(1, None, "it was tested on other images"))["Against the champion"]
    assert none == "Not compared: it was tested on other images."
    assert card(classes)["Against the champion"] == "There was no champion to compare with."


def test_every_section_is_there_in_its_order_and_one_blank_line_apart(project: Path) -> None:
    text = document(["a", "b"])
    assert list(cards.sections(text)) == [
        "",
        "Against the champion",
        "What it is",
        "Data",
        "Test",
        "Confidence",
        "Speed and size",
        TITLE,
        "Limits",
        "Where it comes from",
        "Architecture",
    ]
    assert "\n\n\n" not in text
    assert text.endswith("```\n") and not text.startswith("\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert not re.search(r"[{}]", line) or line.startswith('{"space"'), line


def test_the_numbers_of_the_card(project: Path) -> None:
    text = document(["cat", "dog"], images=200, right=0.75)
    assert "correct for 75.00% of 400 test images" in text
    assert "- 1,000 parameters, 2,000 multiply-adds per image." in text
    assert "- `mine`: 9,000 train, 3 test images; SHA-256" in text
    assert "| cat | 200 | 75.0% | dog (50) |" in text
    assert "| cat | 150 | 50 |" in text
    assert "Expected calibration error 0.150 (15 bins). The mean confidence is 90.0%" in text
    assert "so the network is more confident than it should be" in text
    # Wilson: (0.75 + z²/800 ± z sqrt(0.75 * 0.25 / 400 + z²/640,000)) / (1 + z²/400), z = 1.96
    assert "the accuracy is 75.0% (95% interval: 70.5 to 79.0%)" in text
    assert "- One image: 1.00 ms (median" in text and "; 64 images at once: 1.0 ms at export." in text
    assert "the same answer for all 400 test images, numbers within 1.0e-06." in text
    assert "prove little" not in document(["cat", "dog"], images=500)


def test_of_many_classes_the_weakest_are_shown(project: Path) -> None:
    classes = [f"class {number}" for number in range(30)]
    evaluation = answered(30, 1.0)
    evaluation.details["predicted"][[7, 11, 12]] = 0
    evaluation.per_case[[7, 11, 12]] = 0
    write_card(classes, (8, 8, 1))
    found = task_card(evaluation, PARAMS)
    shown = [row[0].strip() for row in rows(found.results["Test"])[2:]]
    assert len(shown) == 10
    assert {"class 7", "class 11", "class 12"} <= set(shown)
    assert "Weakest class: class 7, 66.7% recognized." in found.limits
    assert "and 10 more" in found.contract[1]
    assert found.headline.startswith("Distinguishes 30 classes of grey images of 8 x 8 pixels;")


def test_a_task_of_numbers_has_a_card_in_its_own_words(project: Path) -> None:
    metric = Metric("squared_error", "window", higher_is_better=False, outcomes="numbers")
    summary = {name.replace("accuracy", metric.name): value for name, value in SUMMARY.items()}
    Path("artifacts/search/summary.json").write_text(json.dumps(summary))
    ours = Evaluation(0.5, np.array([0.25, 0.5, 0.75]), "same")
    theirs = Evaluation(1.0, np.array([1.0, 0.25, 1.75]), "same")
    words = TaskCard(
        "Forecasts.", "A cell.", ["Input `series`."], "none", {"Errors": "By hour."}, ["Weekends."], ["cell"]
    )
    sections = cards.sections(rendered(ours, metric, Champion(1, theirs), words, 3))
    assert "| test squared error | 0.5 | 1 |" in sections["Against the champion"]
    assert "| windows that it answers better | 2 | 1 |" in sections["Against the champion"]
    assert "a paired permutation test gives p = " in sections["Against the champion"]
    assert "milliseconds" not in sections["Against the champion"], "nothing measured the latency"
    assert (sections["Errors"], sections["Limits"]) == ("By hour.", "- Weekends.")
    assert not re.search("image|class|accura", "".join(sections.values()))


def test_what_prepare_noticed_is_in_the_section_on_data(project: Path) -> None:
    write_card(["cat", "dog"], (32, 32, 3))
    data = read_card().model_copy(
        update={
            "left_out": {".heic": 12, "in hidden or tool-made folders": 5},
            "duplicates": Duplicates(copies=4, test_in_train=3, copied_classes=[("a_b", "c*")]),
            "pixel_scale": (0.0, 4095.0),
            "pixel_scale_from": "12 bits",
        }
    )
    evaluation = answered(2, 1.0)
    params = PARAMS.model_copy(update={"data": PARAMS.data.model_copy(update={"name": "imagefolder"})})
    text = rendered(evaluation, ACCURACY, None, task_card(evaluation, params), 6, data)
    section = cards.sections(text)["Data"]
    assert "- 9003 of 9020 files used; left out: 12 .heic, 5 in hidden or tool-made folders." in section
    assert "- 3 test pictures are also training pictures, 4 are copies of another" in section
    assert "the classes 'a\\_b' and 'c\\*' are the same" in section
    assert "- Pixels from 0 to 4095 become 0 to 255 (12 bits)." in section


def test_a_card_gets_a_comparison_that_was_made_later(project: Path) -> None:
    arm = ArmResult(
        name="found", kind="found", network={}, params=9, mean=0.5, test=[0.5], valid=[0.5], minutes=1.0
    )
    compared = ComparisonRecord(
        identity="", metric="accuracy", seeds=[0], epochs=1, test_cases=30, found=arm, others=[], baselines={},
        notices=["something is left out"],
    )  # fmt: skip
    text = document(["a", "b"])
    assert NOT_COMPARED in text
    later = cards.with_comparison(text, compared, ACCURACY)
    assert NOT_COMPARED not in later and "- Something is left out." in later
    assert list(cards.sections(later)) == list(cards.sections(text))
    assert cards.with_comparison(later, compared, ACCURACY) == later
    start, end = text.index(f"## {TITLE}"), text.index("## Limits")
    assert cards.with_comparison(text[:start] + text[end:], compared, ACCURACY) == later, "an older card"
