"""The tables of `python -m benchmarks.evidence`, and which runs it asks for."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import evidence
from benchmarks._evidence_report import DEFAULT, RANDOM, best_of, cells_report, equal_cost, spaces_report
from models.images.genotype import to_json
from models.images.spaces import search_space
from models.search.random_cells import random_cell
from models.training.seeds import generator

CELL = to_json(random_cell(search_space("nasbench201"), generator(0, "test")))
DARTS_CELL = to_json(random_cell(search_space("s4"), generator(0, "test")))


def searched(case: str, seed: int, accuracy: float, **others: Any) -> dict[str, Any]:
    found = {"case": case, "seed": seed, "accuracy": accuracy, "genotype": CELL, "cpu_seconds": 120.0}
    measured = {"discretization_gap": 0.1, "supernet_accuracy": 0.4, "plain_edges": 2}
    return {**found, **measured, "curves": {"tabulated_accuracy": [95.0, 100 * accuracy]}, **others}


def trained(number: int, valid: float, accuracy: float) -> dict[str, Any]:
    return {
        "case": RANDOM,
        "seed": number,
        "valid_accuracy": valid,
        "accuracy": accuracy,
        "cpu_seconds": 20.0,
    }


def test_the_best_of_all_random_cells_is_the_one_with_the_best_validation_accuracy() -> None:
    randoms = [trained(0, 0.5, 0.9), trained(1, 0.7, 0.8), trained(2, 0.6, 0.95)]
    assert set(best_of(randoms, 3)) == {float(100 * np.float32(0.8))}, "not 1 or 2, which the table prefers"
    assert statistics.fmean(best_of(randoms, 1)) == pytest.approx(100 * (0.9 + 0.8 + 0.95) / 3, abs=0.2)
    # Of two: (0, 1) and (1, 2) end with 1, (0, 2) with 2.
    assert statistics.fmean(best_of(randoms, 2)) == pytest.approx(100 * (0.8 + 0.8 + 0.95) / 3, abs=0.2)


def test_equal_cost_is_the_time_of_a_default_search_in_trainings() -> None:
    randoms = [trained(0, 0.5, 0.9), trained(1, 0.7, 0.8)]
    assert (
        equal_cost([searched(DEFAULT, 0, 0.9), searched("darts, none", 0, 0.9, cpu_seconds=9e9)], randoms)
        == 6
    )
    assert equal_cost([searched("darts, none", 0, 0.9)], randoms) is None


def test_the_report_has_a_row_per_case_and_the_best_epoch_beside_the_last() -> None:
    runs = [searched(DEFAULT, 0, 0.92), searched(DEFAULT, 1, 0.94), searched("darts, none", 0, 0.9)]
    text = cells_report({}, [*runs, *(trained(number, 0.1 * number, 0.9) for number in range(6))])
    assert f"| {DEFAULT} | 2 | 93.00 ± 1.41 | 92.00 | 95.00 ± 0.00 |" in text
    assert "| 6 | 90.00 ± 0.00 | the cost of one default search |" in text
    assert "| 10 |" not in text, "there are no ten random cells"


def test_noise_and_skip_connections_of_both_cells_are_counted() -> None:
    runs = [searched("s4: darts, none", 0, 0.9, genotype=DARTS_CELL, discretized_accuracy=0.3)]
    noise = sum(edge[0] == "noise" for group in ("normal", "reduce") for edge in DARTS_CELL[group])
    assert noise > 0
    assert f"| 0.00 | {noise:.2f} |" in spaces_report({}, runs)


def test_all_cases_are_valid_settings_and_differ(tmp_path: Path) -> None:
    for what, table in (("cells", ["--table", "table.csv"]), ("spaces", [])):
        arguments = evidence.options([what, "some.npz", "--seeds", "1", "--random", "2", *table])
        arguments.table = None  # its hash is part of the keys, and there is no such file
        keys = [job.key for job in evidence.jobs(arguments, tmp_path / "some.npz")]
        assert len(set(keys)) == len(keys) == len(evidence.CASES[what]) + (2 if what == "cells" else 0)


def test_the_subset_is_the_beginning_of_the_file(tmp_path: Path) -> None:
    arrays = {
        f"{part}_{what}": np.arange(20, dtype=np.uint8).reshape(-1, *shape) + offset
        for part, offset in (("train", 0), ("test", 100))
        for what, shape in (("images", (1, 1, 1)), ("labels", ()))
    }
    np.savez(tmp_path / "some.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with np.load(evidence.subset(tmp_path / "some.npz", 8, tmp_path)) as made:
        assert made["train_labels"].tolist() == list(range(8))
        assert made["val_images"].flatten().tolist() == [8, 9]
        assert made["test_labels"].tolist() == [100, 101]


def test_a_file_that_is_missing_or_no_data_set_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["spaces", str(tmp_path / "some.npz"), "--output", str(tmp_path)]
    assert evidence.main(words) == 2
    np.savez(tmp_path / "some.npz", images=np.zeros(3))
    assert evidence.main(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "some.npz is not a file" in first and "some.npz has no train_images" in second


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["cells", "some.npz"], "--table"),
        (["spaces", "some.npz", "--table", "table.csv"], "--table"),
        (["spaces", "some.npz", "--cases", "s9: darts"], "'s9: darts'; the cases are 's1: darts, none'"),
        (["spaces", "some.npz", "--images", "0"], "--images is 0; set 1 or more"),
    ],
)
def test_a_mistake_in_the_command_is_named(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        evidence.options(words)
    assert ended.value.code == 2 and part in capsys.readouterr().err


def test_runs_of_earlier_code_stay_while_their_settings_do(tmp_path: Path) -> None:
    words = ["spaces", "some.npz", "--seeds", "1", "--output", str(tmp_path), "--epochs", "9"]
    arguments = evidence.options(words)
    job = evidence.jobs(arguments, tmp_path / "some.npz")[0]
    kept = {"settings": job.settings, "case": job.case, "seed": 0, "machine": "another"}
    other = {"settings": "of other settings", "case": job.case, "seed": 1, "machine": "another"}
    (tmp_path / "evidence_spaces.json").write_text(json.dumps({"runs": [kept, other]}))
    assert evidence.everything(arguments, tmp_path / "some.npz", tmp_path / "none.jsonl") == [kept]
    elsewhere = evidence.jobs(arguments, tmp_path / "folder" / "some.npz")[0]
    assert elsewhere.settings == job.settings, "the place of the file is no setting"
    longer = evidence.options([*words[:-1], "10"])
    assert evidence.everything(longer, tmp_path / "some.npz", tmp_path / "none.jsonl") == []
