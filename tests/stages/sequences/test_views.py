"""What the report and the card say about forecasts and texts follows from the evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stages.evaluation import Evaluation
from stages.sequences import architectures, views
from stages.sequences.data import DATA, read_card
from stages.sequences.params import BITS, MASE, Params
from stages.sequences.prepare import prepare
from stages.sequences.testing import series, text
from stages.sequences.views import drawings, page
from tests.stages.sequences.making import hourly, settings, table, waves
from tests.stages.sequences.test_architectures import TWO


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts" / "genotype").mkdir(parents=True)
    genotype = architectures.genotype_of(TWO)
    (tmp_path / "artifacts" / "genotype" / "genotype.json").write_text(
        json.dumps(architectures.genotype_json(genotype))
    )
    DATA.mkdir()
    return tmp_path


def made(folder: Path, content: str, **changes: object) -> Params:
    """Prepares a table or a text in the current folder."""
    (folder / "input.csv").write_text(content)
    params = settings(root="input.csv", **changes)
    prepare(params, DATA).write(DATA / "data.json", BITS if params.data.name == "text" else MASE)
    return params


def forecasts(folder: Path, **changes: object) -> tuple[Params, Evaluation]:
    """A found network that is right up to one unit, and an LSTM that is right up to half of one."""
    header = "time,y,other"
    params = made(folder, table(hourly(200), waves(200), waves(200, 1), header=header), targets=["y", "other"], **changes)  # fmt: skip
    test = series.read_test_windows(read_card())
    truth = test.truth()
    others = {"lstm": (truth + np.float32(0.5), 90)}
    return params, series.evaluation_of(truth + np.float32(1), test, others, params=100, size_bytes=1)


def shown(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<svg.*?</svg>|<[^>]*>", " ", html, flags=re.DOTALL))


def test_the_panel_has_networks_windows_and_what_is_better(folder: Path) -> None:
    params, evaluation = forecasts(folder)
    html = views.test_panel(params, evaluation)
    words, ours = shown(html), evaluation.score
    assert f"found network {ours:.4g}" in words and f"LSTM {ours / 2:.4g}" in words
    assert "seasonal naive" in words and "which repeats the values of 1 hour before" in words
    assert "Notice: the found network is worse than LSTM" in words
    assert html.count("<svg") == 2 + params.report.examples, "errors of two targets, and windows"
    assert "MASE by target" in words
    best = MASE.text(float(evaluation.per_case.min()))[:4]
    assert f"MASE {best}" in words


def test_windows_are_shown_from_the_best_to_the_worst() -> None:
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert page.from_best_to_worst(values, 3) == [1, 4, 0]
    assert page.from_best_to_worst(values, 9) == [1, 3, 4, 2, 0]
    assert page.from_best_to_worst(values, 0) == []


def test_times_are_those_of_the_zone() -> None:
    assert page.moment(1_774_749_600, None) == "2026-03-29 02:00"
    assert page.moment(1_774_749_600, "Europe/Berlin") == "2026-03-29 04:00"
    assert page.moment(0, None) == "1970-01-01"


def test_a_forecast_begins_at_the_last_known_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(drawings.Figure, "savefig", lambda figure, _: seen.append(figure))
    past, ahead = np.array([[1.0], [2.0]], np.float32), np.array([[3.0], [4.0], [5.0]], np.float32)
    drawings.forecast(Path("nowhere"), drawings.Window("", past, ahead, ahead + 1, ahead + 2, ("y",)))
    lines = {line.get_label(): line.get_xydata() for line in seen[0].axes[0].lines}
    np.testing.assert_array_equal(lines["truth"], [[0, 2], [1, 3], [2, 4], [3, 5]])
    np.testing.assert_array_equal(lines["forecast"], [[0, 2], [1, 4], [2, 5], [3, 6]])


def test_the_card_says_contract_results_and_limits(folder: Path) -> None:
    params, evaluation = forecasts(folder)
    card = views.card(evaluation, params)
    assert f"test MASE {MASE.text(evaluation.score)}" in card.headline and "y, other" in card.headline
    assert "float32 (batch, 4, 2)" in card.contract[0] and "one row every hour" in card.contract[0]
    assert "| LSTM |" in card.results["Beside other networks"]
    assert card.notices and "worse than LSTM" in card.notices[0]
    assert list(card.groups) == ["left", "right", "combiner"]
    assert card.licence == "not known; the owner of the file must state it"
    assert (
        "200 rows, one every hour; from 4 hours, the network forecasts y and other for 2 hours"
        in views.data_words()
    )
    assert "look-back row by row" in views.words().reading


def test_texts_show_their_chunks(folder: Path) -> None:
    params = made(folder, "abcd efgh <b>\n" * 60, name="text", chunk=8, unit="characters")
    test = text.read_test_text(read_card())
    bits = np.linspace(1, 2, len(test))
    evaluation = text.evaluation_of(bits, test, {"lstm": (bits + 1, 90)}, params=100)
    html = views.test_panel(params, evaluation)
    assert "&lt;b&gt;" in html and "<b>\n" not in html, "the text is no HTML"
    assert f"{evaluation.per_case.min():.3g} bits per character" in shown(html)
    assert "Notice" not in html and "MASE" not in html
    card = views.card(evaluation, params)
    assert "bits per character" in card.headline and "MASE" not in " ".join(card.results)
    assert "a text of 840 characters" in views.data_words()
