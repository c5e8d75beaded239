"""registry.json: files from before there were several metrics can be read, and what is written is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.errors import UserError
from stages.registry.record import Compared, RegistryRecord

# As the stage wrote it when accuracy was the only metric.
OLD: dict[str, Any] = {
    "model": "msdarts",
    "version": 3,
    "promoted": False,
    "reason": "not promoted: test accuracy 0.9000 against 0.9500 of version 1 (p = 0.02, more than noise)",
    "refusals": ["test accuracy 0.9000 against 0.9500 of version 1"],
    "aliases": ["challenger"],
    "champion_before": 1,
    "champion_after": 1,
    "test_accuracy": 0.9,
    "latency_ms": 1.25,
    "size_bytes": 1000,
    "calibration_error": 0.03,
    "compared": {
        "test_accuracy": 0.95,
        "latency_ms": 1.5,
        "size_bytes": 2000,
        "gain": -0.05,
        "only_challenger_right": 4,
        "only_champion_right": 14,
        "p_value": 0.02,
        "exceeds_noise": True,
    },
    "model_sha256": "a" * 64,
    "data_sha256": "b" * 64,
    "dvc_lock_sha256": None,
    "git_commit": "c" * 40,
    "prefect_flow_run": None,
    "runs": {"search": None, "retrain": "r" * 32, "export": "e" * 32, "register": "g" * 32},
    "test_sha256": "d" * 64,
    "int8": {
        "file": "model.int8.onnx",
        "sha256": "f" * 64,
        "test_accuracy": 0.89,
        "accuracy_drop": 0.01,
        "agreement": 0.98,
        "latency_ms": {"batch_1": 1.0, "batch_64": 20.0},
        "included": True,
        "reason": "int8 costs 0.0100 of test accuracy, within registry.max_int8_drop (0.01)",
    },
    "gate": {"min_gain": 0.0, "significance": None, "max_difference": 0.0001},
}


def test_an_old_file_is_read_and_written_the_same_but_for_the_metrics_name(tmp_path: Path) -> None:
    record = RegistryRecord.parse(json.dumps(OLD))
    assert (record.metric, record.score, record.measures) == ("accuracy", 0.9, {"calibration_error": 0.03})
    assert record.compared is not None and record.compared.score == 0.95
    assert record.int8 is not None and (record.int8.score, record.int8.drop) == (0.89, 0.01)
    assert (record.origin.git_commit, record.origin.runs["retrain"]) == ("c" * 40, "r" * 32)
    path = tmp_path / "registry.json"
    record.write(path)
    written = json.loads(path.read_text())
    assert written.pop("metric") == "accuracy"
    assert written == OLD
    assert list(written) == list(OLD)
    assert RegistryRecord.read(path) == record


def test_another_metric_is_in_the_names_of_its_scores() -> None:
    old = RegistryRecord.parse(json.dumps(OLD))
    compared = Compared(
        score=0.2,
        latency_ms=None,
        size_bytes=None,
        gain=0.1,
        challenger_better=3,
        champion_better=0,
        p_value=0.25,
        exceeds_noise=False,
    )
    changes = {"metric": "squared_error", "score": 0.1, "measures": {}, "compared": compared}
    record = old.model_copy(update=changes)
    written = json.loads(json.dumps(record.model_dump()))
    assert (written["test_squared_error"], written["compared"]["test_squared_error"]) == (0.1, 0.2)
    assert "test_accuracy" not in written and "only_challenger_right" not in written["compared"]
    assert written["int8"]["squared_error_drop"] == 0.01
    assert RegistryRecord.parse(json.dumps(written)) == record


@pytest.mark.parametrize(
    "damage", ["{", "[]", "{}", json.dumps({**OLD, "version": "new"}), json.dumps({**OLD, "extra": "word"})]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "registry.json"
    with pytest.raises(UserError, match="registry.json is missing"):
        RegistryRecord.read(path)
    path.write_text(damage)
    with pytest.raises(
        UserError, match="registry.json is damaged .* delete it and run `dvc repro`$"
    ) as error:
        RegistryRecord.read(path)
    assert "\n" not in str(error.value)
