from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import _trial, stability
from benchmarks._collapse import collapsed, plain_edges
from benchmarks._stability_report import genotype_text, ratio, report, spread
from benchmarks._trial import Run, read
from models.images.notations import from_arch_str
from models.search.genotype import Genotype
from stages.errors import UserError

WITHOUT = "|skip_connect~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
WITH = "|skip_connect~0|+|none~0|avg_pool_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_1x1~2|"


def a_run(case: str, seed: int, gap: float, **others: Any) -> Run:
    return {
        "case": case,
        "seed": seed,
        "discretization_gap": gap,
        "supernet_accuracy": 0.9,
        "discretized_accuracy": 0.9 - gap,
        "accuracy": None,
        "plain_edges": 3,
        "collapsed": False,
        "genotype": {"space": "nasbench201", "arch_str": WITH},
        "notices": [],
        "search_seconds": 1.0,
        "curves": {"movement": [0.0, 0.0]},
        **others,
    }


def test_a_cell_has_collapsed_with_four_edges_without_parameters() -> None:
    assert (plain_edges(from_arch_str(WITHOUT)), collapsed(from_arch_str(WITHOUT))) == (4, True)
    assert (plain_edges(from_arch_str(WITH)), collapsed(from_arch_str(WITH))) == (3, False)


@pytest.mark.parametrize("skips", [4, 5])
def test_a_normal_cell_has_collapsed_with_five_skip_connections(skips: int) -> None:
    ops = ["skip_connect"] * skips + ["max_pool_3x3"] * (8 - skips)
    normal = tuple((row % 2, 2 + row // 2, op) for row, op in enumerate(ops))
    reduce = tuple((row % 2, 2 + row // 2, "skip_connect") for row in range(8))
    assert collapsed(Genotype("darts", {"normal": normal, "reduce": reduce})) == (skips == 5)


def test_the_ratio_is_of_means_over_the_first_three_seeds() -> None:
    runs = [a_run("darts", seed, gap) for seed, gap in enumerate((0.6, 0.7, 0.8, 0.0))]
    runs += [a_run("ms-darts", seed, gap) for seed, gap in enumerate((0.1, 0.2, 0.3, 9.0))]
    assert ratio(runs) == pytest.approx(0.2 / 0.7)
    assert ratio(runs[:2] + runs[4:]) is None


def test_deviations_are_those_of_a_sample() -> None:
    assert spread([1.0, 3.0]).deviation == pytest.approx(math.sqrt(2))
    assert str(spread([1.0])) == "1.000"


def test_a_table_row_has_mean_deviation_and_collapses() -> None:
    runs = [a_run("darts", 0, 0.25, collapsed=True), a_run("darts", 1, 0.75)]
    text = report({"data": "none"}, runs, "Title", "test accuracy")
    assert "| darts | 2 | 0, 1 | 0.500 ± 0.354 |" in text
    assert "| 1 of 2 |" in text
    assert all(line.count("|") == 9 for line in text.splitlines() if "nor_conv" in line)


def test_a_genotype_is_no_table_of_its_own() -> None:
    assert "|" not in genotype_text({"space": "nasbench201", "arch_str": WITH})


def test_settings_refuse_what_params_yaml_may_not_hold() -> None:
    with pytest.raises(UserError, match=r"search.epoch is unknown; did you mean search.epochs\?"):
        stability.settings({"search.epoch": 3})
    with pytest.raises(UserError, match="search.epochs is 0"):
        stability.settings({"search.epochs": 0})


def test_the_profile_is_that_of_the_calibration() -> None:
    wanted = stability.jobs(stability.options([]))
    assert [job.seed for job in wanted[:4]] == [0] * 4
    assert len(wanted) == 16 and len({job.key for job in wanted}) == 16
    config = wanted[0].params.search
    assert (config.channels, config.cells, config.stages, config.epochs) == (4, 1, 2, 60)
    assert config.exclude_none and config.alpha.learning_rate == 0.01
    # Nothing is stopped, while the eigenvalue is measured.
    assert config.early_stopping.watch == "eigenvalue" and config.early_stopping.window == config.epochs


def test_the_half_data_control_has_as_many_images_as_half_of_a_search() -> None:
    wanted = stability.jobs(stability.options(["--single-level", "--seeds", "1"]))
    counts = {job.case: job.params.search.images for job in wanted}
    half = len(read(wanted[0].params.data)[0].train) // 2
    assert counts == {
        "sigmoid, all data": None,
        "sigmoid, half the data": half,
        "softmax, all data": None,
        "softmax, half the data": half,
    }


def test_without_the_crop_training_images_are_as_they_are() -> None:
    params = stability.settings(stability.PROFILE).data
    cropped, plain = (
        read(params, crop=crop)[0].preprocess(cutout=0, device=torch.device("cpu")) for crop in (True, False)
    )
    assert (cropped.padding, plain.padding) == (1, 0)
    assert cropped.mean == plain.mean


def test_a_line_that_an_interruption_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"key": "a", "seed": 0}\n{"key": "b", "se')
    assert stability.finished(path) == {"a": {"key": "a", "seed": 0}}


@pytest.mark.slow
def test_the_smallest_run_writes_its_results_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--strategies", "darts", "ms-darts", "--seeds", "1", "--epochs", "2", "--retrain-epochs", "1"]
    words += ["--output", str(tmp_path)]
    assert stability.main(words) == 0
    assert "2 of 2 runs to do" in capsys.readouterr().out
    found = json.loads((tmp_path / "stability.json").read_text())
    assert [run["case"] for run in found["runs"]] == ["darts", "ms-darts"]
    for run in found["runs"]:
        gap = run["supernet_accuracy"] - run["discretized_accuracy"]
        assert run["discretization_gap"] == pytest.approx(gap)
        assert 0 <= run["accuracy"] <= 1
        assert len(run["curves"]["hessian_eigenvalue"]) == 2
    table = (tmp_path / "stability.md").read_text()
    assert "| darts | 1 | 0 |" in table and "cores" in table
    assert (tmp_path / "stability.png").stat().st_size > 10_000
    lines = (tmp_path / "stability.jsonl").read_text().splitlines()
    (tmp_path / "stability.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    assert stability.main(words) == 0
    assert "1 of 2 runs to do" in capsys.readouterr().out
    assert len((tmp_path / "stability.jsonl").read_text().splitlines()) == 2


def test_a_change_of_how_images_are_split_repeats_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier run may be used again only while all the code that made it is the same."""
    (job, *_) = stability.jobs(stability.options(["--seeds", "1"]))
    before, hashed = job.key, _trial.sha256_of

    def changed(*paths: Path) -> str:
        split = any(path.match("stages/images/prepare/__init__.py") for path in paths)
        return hashed(*paths) + ("changed" if split else "")

    monkeypatch.setattr(_trial, "sha256_of", changed)
    assert job.key != before
