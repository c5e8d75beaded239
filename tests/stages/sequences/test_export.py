"""The exported file: its contract, its answers beside torch's, and the same bytes for the same weights."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.sequences.cell import FoundCell
from models.sequences.deploy import ScannedCell
from models.sequences.retrain import FOUND
from serving.model import read_file
from stages.contracts import ExportResult
from stages.errors import UserError
from stages.plumbing.files import EXPORT, KNOWN, RETRAIN
from stages.sequences import export, exported
from stages.sequences.data import read_card
from stages.sequences.export.known import moment
from stages.sequences.export.onnx_file import write_onnx
from stages.sequences.params import TEXT, Params
from stages.sequences.testing.series import read_test_windows
from stages.sequences.testing.with_torch import load_networks, series_answer, text_answer
from tests.models.test_sequences_cell import random_genotype
from tests.stages.sequences.projects import project, trained, waves

WEIGHTS = RETRAIN / "weights.safetensors"


@pytest.fixture(scope="module")
def done(retrained: Params) -> ExportResult:
    """The export of the project, in its folder."""
    EXPORT.mkdir(exist_ok=True)
    return export.export(retrained, EXPORT)


def test_the_file_has_the_inputs_outputs_and_metadata_of_the_contract(done: ExportResult) -> None:
    session, card = onnxruntime.InferenceSession(EXPORT / "model.onnx"), read_card()
    described = [(entry.name, entry.type, entry.shape) for entry in (*session.get_inputs(), *session.get_outputs())]  # fmt: skip
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["genotype"])["space"] == "two-input"
    if card.kind == TEXT:
        vocabulary = len(card.vocabulary)
        assert described == [
            ("tokens", "tensor(int64)", ["batch", "time"]),
            ("state", "tensor(float)", ["batch", 5]),
            ("logits", "tensor(float)", ["batch", "time", vocabulary]),
            ("new_state", "tensor(float)", ["batch", 5]),
        ]
        assert about["task"] == "text" and about["unit"] == "characters"
        assert json.loads(about["vocabulary"]) == list(card.vocabulary)
        return
    assert described == [
        ("series", "tensor(float)", ["batch", 12, 3]),
        ("forecast", "tensor(float)", ["batch", 4, 2]),
    ]
    assert about["task"] == "forecasting"
    assert json.loads(about["series"]) == {
        "targets": ["load", "price"],
        "covariates": ["heat"],
        "lookback": 12,
        "horizon": 4,
        "step": {"unit": "seconds", "count": 3600},
        "zone": None,
        "time": "time",
    }


def test_the_server_takes_the_example_to_try(done: ExportResult) -> None:
    card = read_card()
    if card.kind == TEXT:
        assert not KNOWN.exists()
        return
    served = read_file(EXPORT / "model.onnx", threads=1)
    assert served.kind is not None and served.kind.accepts(served.known) is None
    assert served.known.example is not None
    test = read_test_windows(card)
    middle = len(test) // 2
    of_load = served.known.example.columns["load"]
    np.testing.assert_allclose(of_load, test.inputs(middle, middle + 1)[0, :, 0], rtol=1e-6)
    np.testing.assert_allclose(served.known.truth["price"], test.truth()[middle, :, 1], rtol=1e-6)


def test_times_of_an_example_have_the_offset_of_their_zone() -> None:
    summer = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())
    assert moment(summer, "Europe/Berlin") == "2026-10-25T02:30:00+02:00"
    assert moment(summer + 3600, "Europe/Berlin") == "2026-10-25T02:30:00+01:00"
    assert moment(summer, None) == "2026-10-25T00:30:00"


def test_the_file_answers_as_torch_does_at_any_size(retrained: Params, done: ExportResult) -> None:
    session, card = exported.session_of(EXPORT / "model.onnx"), read_card()
    network, source = load_networks(retrained.retrain, WEIGHTS)[FOUND], np.random.default_rng(0)
    for size in (1, 5, 33):
        if card.kind != TEXT:
            windows = source.normal(0, 20, (size, 12, 3)).astype(np.float32)
            np.testing.assert_allclose(exported.series_answer(session)(windows), series_answer(network, card)(windows), rtol=1e-4, atol=1e-4)  # fmt: skip
            continue
        for steps in (1, 17):
            tokens = source.integers(len(card.vocabulary), size=(size, steps))
            state = source.normal(size=(size, 5)).astype(np.float32)
            for one, other in zip(exported.text_answer(session)(tokens, state), text_answer(network)(tokens, state), strict=True):  # fmt: skip
                np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_record_and_the_evaluation_are_about_the_file(retrained: Params, done: ExportResult) -> None:
    card, record = read_card(), done.record
    assert record.test_cases == card.counts["test"] == len(done.evaluation.per_case)
    assert 0 <= record.largest_difference < 1e-4
    assert record.params == sum(w.numel() for name, w in load_file(WEIGHTS).items() if name.startswith("network."))  # fmt: skip
    assert record.macs is not None and record.macs > 0
    assert {"onnxruntime_batch_1", "torch_batch_64"} <= set(record.latency_ms)
    again = exported.evaluate(EXPORT / "model.onnx")
    np.testing.assert_allclose(again.per_case, done.evaluation.per_case, atol=1e-6)
    assert again.cases_sha256 == done.evaluation.cases_sha256
    name = "bits_per_character.lstm" if card.kind == TEXT else "mase.dlinear"
    assert name in done.evaluation.details, "the report shows the others beside it"
    assert exported.answers(EXPORT / "model.onnx", 3).shape[0] == 3
    assert set(exported.example()) == ({"tokens", "state"} if card.kind == TEXT else {"series"})
    assert exported.one_call(EXPORT / "model.onnx")()
    assert all(isinstance(value, str) for value in exported.version_tags().values())
    assert all(np.isfinite(value) for value in exported.measures(done.evaluation).values())


def test_the_same_weights_give_the_same_bytes(retrained: Params, done: ExportResult, tmp_path: Path) -> None:
    network = load_networks(retrained.retrain, WEIGHTS)[FOUND]
    write_onnx(network, read_card(), retrained.export.opset, tmp_path / "again.onnx")
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (EXPORT / "model.onnx").read_bytes()
    assert str(Path.cwd()).encode() not in content and b"/models/" not in content
    model = onnx.load(tmp_path / "again.onnx")
    assert [node.op_type for node in model.graph.node].count("Scan") == 1


@pytest.mark.parametrize("opset", [15, 17, 23])
def test_older_and_newer_opsets_give_the_same_answers(retrained: Params, done: ExportResult, opset: int, tmp_path: Path) -> None:  # fmt: skip
    network, card = load_networks(retrained.retrain, WEIGHTS)[FOUND], read_card()
    path = tmp_path / "other.onnx"
    write_onnx(network, card, opset, path)
    assert onnx.load(path).opset_import[0].version == opset
    for one, other in zip(exported.answers(path, 5), exported.answers(EXPORT / "model.onnx", 5), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", ["two-input", "one-input"])
def test_the_loop_of_the_graph_is_the_cell(space: str) -> None:
    torch.manual_seed(0)
    cell = FoundCell(random_genotype(space, 4, 2), 3, 4)
    x, state = torch.randn(2, 6, 3), torch.randn(2, 4)
    with torch.no_grad():
        scanned = ScannedCell(cell)(x, state)
    for ours, theirs in zip(scanned, cell(x, state), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_values_that_are_large_compared_to_their_changes_keep_their_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 1e5 with a wave of 10, float32 has steps of 1/128; the forecasts are as good as at 0."""
    scores = []
    for level in (0.0, 100_000.0):
        folder = tmp_path / str(level)
        folder.mkdir()
        monkeypatch.chdir(folder)
        params = project("series", {"data.targets": ["load"], "data.covariates": []}, waves(600, level))
        trained(params)
        EXPORT.mkdir()
        done = export.export(params, EXPORT)
        scores.append(done.evaluation.score)
        assert done.record.largest_difference < 1e-2
    assert scores[1] == pytest.approx(scores[0], rel=0.02)


def test_a_file_that_answers_otherwise_is_not_exported(
    retrained: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card()

    def wrong(network: torch.nn.Module, card: object, opset: int, path: Path) -> None:
        with torch.no_grad():
            head = network.get_parameter("head.bias")
            head.add_(1.0)
            write_onnx(network, read_card(), opset, path)
            head.sub_(1.0)

    monkeypatch.setattr(export, "write_onnx", wrong)
    with pytest.raises(UserError, match="ONNX Runtime and torch differ by"):
        export.export(retrained, tmp_path)
    assert card.counts["test"] > 0


def test_weights_that_do_not_fit_are_refused(retrained: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; `dvc repro retrain` makes it"):
        load_networks(retrained.retrain, tmp_path / "weights.safetensors")
    save_file({"network.head.bias": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="does not fit the network"):
        load_networks(retrained.retrain, tmp_path / "weights.safetensors")
