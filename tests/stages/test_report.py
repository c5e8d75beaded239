"""The report shows the right numbers, is a single file, and is linked from the registry."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from PIL import Image

from models.training.events import Row
from stages import pictures
from tests.serving.browser import CHROMIUM, browser
from tests.stages.conftest import TINY, write_params

RunStage = Callable[..., int]
REPORT = Path("artifacts/report.html")


def page() -> str:
    return REPORT.read_text(encoding="utf-8")


@pytest.fixture
def registered(finished_copy: Path, run_stage: RunStage) -> Path:
    """A finished project whose network is registered."""
    write_params(finished_copy / "params.yaml", {**TINY, "registry.name": "reported"})
    assert run_stage("register") == 0
    return finished_copy


def test_the_page_tells_the_run_and_the_registry_knows_of_it(
    registered: Path, run_stage: RunStage, store: str
) -> None:
    assert run_stage("report") == 0
    first, text = REPORT.read_bytes(), page()
    registry = json.loads(Path("artifacts/registry.json").read_text())
    data = json.loads(Path("artifacts/data/data.json").read_text())
    facts = (registry["reason"], registry["git_commit"].removesuffix("-dirty"), data["sha256"], "search.seed")
    for fact in facts:
        assert fact in text, fact
    summary = json.loads(Path("artifacts/search/summary.json").read_text())
    assert f"{100 * summary['discretization_gap']:.1f}%" in text
    for title in ("row entropy of the mix", "skip connections", "edges changed", "movement of the mix"):
        assert title in text, title
    # Two cells, broad and narrow, eight panels of curves, the landscape, for both cells the mix over the epochs, with 14
    # edges each, and the reliability diagram.
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawings) == 2 * 2 + 8 + 1 + 2 + 1
    assert [drawing.count("\u2192") for drawing in drawings[11:13]] == [14, 14]
    with Path("artifacts/search/landscape.csv").open() as file:
        losses = {
            (float(row["first"]), float(row["second"])): float(row["loss"]) for row in csv.DictReader(file)
        }
    center = losses.pop((0.0, 0.0))
    assert (
        f"from the {center:.4g} in the middle by {sum(losses.values()) / 8 - center:.4g} on average" in text
    )
    # Nothing is fetched and nothing runs. Addresses that are names of XML dialects are not fetched.
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert all(address.startswith("data:image/png;base64,") for address in re.findall(r'src="([^"]+)"', text))
    # A second report is the same, and the version says where the report is kept.
    assert run_stage("report") == 0
    assert REPORT.read_bytes() == first
    version = MlflowClient(tracking_uri=store).get_model_version("reported", str(registry["version"]))
    kept = download_artifacts(
        run_id=version.tags["run_report"], artifact_path="report.html", tracking_uri=store
    )
    assert Path(kept).read_bytes() == first


def test_the_notice_of_the_search_is_near_the_top(registered: Path, run_stage: RunStage) -> None:
    notice, summary = "the mix has 99% of the <entropy>", Path("artifacts/search/summary.json")
    content = json.loads(summary.read_text())
    content.pop("notice", None)
    for told in ({}, {"notice": notice}):
        summary.write_text(json.dumps(content | told))
        assert run_stage("report") == 0
        top = html.unescape(page()).partition("<h2")[0]
        assert (f"<p>Search: {notice}.</p>" in top) == bool(told)


def test_examples_and_confusion_are_the_networks_answers(registered: Path, run_stage: RunStage) -> None:
    assert run_stage("report") == 0
    images, labels = (np.load(f"artifacts/data/test_{name}.npy") for name in ("images", "labels"))
    session = onnxruntime.InferenceSession("artifacts/export/model.onnx", providers=["CPUExecutionProvider"])
    answers = np.asarray(session.run(None, {"image": images})[0])
    right = answers.argmax(1) == labels
    assert 12 < right.sum() < len(labels) - 12, "the test needs a network with right and wrong answers"
    assert f"{right.sum()} of {len(labels)} right, {(~right).sum()} wrong" in page()
    wrong_part, right_part = page().split("<h3>Right answers")
    kinds = {False: wrong_part.split("<h3>Wrong answers")[1], True: right_part}
    for kind, part in kinds.items():
        examples = re.findall(
            r'base64,([^"]+)" alt="">\s*<span>(.*?)</span>\s*<span class="quiet">(\d+)% confident', part
        )
        assert len(examples) == 12
        for encoded, answer, sure in examples:
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))[..., None]
            (index, *_) = np.flatnonzero((images == pixels).all(axis=(1, 2, 3)))
            assert right[index] == kind
            best, is_ = answers[index].argmax(), labels[index]
            assert answer == (f"{is_}" if kind else f"<b>{best}</b>, is {is_}")
            assert int(sure) == pytest.approx(100 * answers[index].max(), abs=0.51)
    matrix = page().split('class="matrix"')[1].split("</table>")[0]
    marked = re.findall(r'<td[^>]* class="right[^"]*">(\d+)</td>', matrix)  # not red
    assert sum(map(int, marked)) == right.sum()
    cells = re.findall(r"<td[^>]*>(\d*)</td>", matrix)
    counts = np.array([int(cell or 0) for cell in cells]).reshape(10, 10)
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (labels, answers.argmax(1)), 1)
    np.testing.assert_array_equal(counts, expected)


def test_no_class_is_taken_for_markup_and_no_example_is_shown_where_none_is_wanted(
    registered: Path, run_stage: RunStage
) -> None:
    path = Path("artifacts/data/data.json")
    names = ["<script>alert(1)</script>", "$a$", '"quoted"', *"3456789"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": names}))
    write_params(registered / "params.yaml", {**TINY, "registry.name": "reported", "report.examples": 0})
    assert run_stage("report") == 0
    assert "<script" not in page()
    assert "&lt;script&gt;alert(1)" in page()
    assert "<img" not in page()


def test_what_prepare_noticed_is_on_the_page(registered: Path, run_stage: RunStage) -> None:
    path = Path("artifacts/data/data.json")
    noticed = {"left_out": {".<b>": 3}, "duplicates": {"test_in_train": 2, "copies": 2}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **noticed}))
    assert run_stage("report") == 0
    assert "of 1800 files used; left out: 3 .&lt;b&gt;." in page()
    assert "<p>Data: 2 test pictures are also training pictures, 2 are copies of another" in page()


def test_what_is_missing_is_one_line(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_stage("report") == 2
    assert "artifacts/registry.json is missing" in capsys.readouterr().err
    assert not REPORT.exists()


def test_flat_curves_are_drawn_within_the_chart_and_their_ticks_say_the_whole_value() -> None:
    history: list[Row] = [
        {"epoch": n, "train_loss": 1.1, "entropy": 2.0794 - 1e-4 * n} for n in (1.0, 2.0, 3.0, 4.0)
    ]
    axes = Figure().add_subplot()
    pictures._draw(axes, history, pictures.Panel("loss", {"training": "train_loss"}, from_zero=True))
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 1.02 * 1.1
    drawing = pictures.svg(pictures.small, history, pictures.Panel("entropy", {"normal": "entropy"}))
    ticks = re.findall(r"<text[^>]*>([^<]+)</text>", drawing)
    assert any(tick.startswith("2.079") for tick in ticks) and not any("+" in tick for tick in ticks)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_the_page_fits_every_screen_and_can_be_read(
    registered: Path, run_stage: RunStage, tmp_path: Path
) -> None:
    assert run_stage("report") == 0
    with browser(tmp_path) as tab:
        for width, dark in ((390, False), (390, True), (1280, False), (1280, True)):
            tab.resize(width, 800, phone=width < 500, dark=dark)
            tab.open((registered / REPORT).resolve().as_uri())
            assert tab.faint() == []
            tab.value("document.querySelectorAll('details').forEach(details => { details.open = true })")
            assert tab.value("document.documentElement.scrollWidth") == width
            scrolled = (
                "[...document.querySelectorAll('.scroll')].filter(part => part.scrollWidth > part.clientWidth)"
                ".map(part => part.ariaLabel)"
            )
            assert tab.value(scrolled) == []
            # The drawing of a cell that is shown, and the size of the operations' names in it.
            heights = (
                "[...document.querySelectorAll('.cells text')].filter(text => text.checkVisibility())"
                ".map(text => text.getBoundingClientRect().height)"
            )
            assert min(tab.value(heights)) >= 11
