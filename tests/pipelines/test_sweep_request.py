"""What a sweep is asked for, who runs it, and how it is reported; nothing is trained here."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.states import Failed

from pipelines import sweep_report
from pipelines.command import message_of
from pipelines.graph import Stage, without_effect
from pipelines.runners import RUNNERS, RunnerName, connected, cores_per_trial, task_runner
from pipelines.sweep import main
from pipelines.sweep_request import checked
from pipelines.trials import RankBy, Result, plan, scores, winner
from stages.errors import MachineError, UserError
from stages.evaluation import Metric
from stages.images.params import METRIC
from tests.stages.conftest import ROOT, write_params

CHAIN = [
    Stage("prepare", False, (), ("data",)),
    Stage("search", True, ("prepare",), ("search",)),
    Stage("discretize", False, ("search",), ("discretize",)),
]


def results(*accuracies: float | None) -> list[Result]:
    trials = plan(range(len(accuracies)), {}, {}, None)
    return [
        Result(trial, "failed" if score is None else "ran", score, "search: no" if score is None else "")
        for trial, score in zip(trials, accuracies, strict=True)
    ]


def test_a_cluster_that_does_not_answer_is_one_line() -> None:
    class Away:
        def __enter__(self) -> None:
            raise ConnectionError("ray client\n connection timeout")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("it was never entered")

    with pytest.raises(MachineError) as error, connected(Away()):  # type: ignore[arg-type]
        pass
    assert str(error.value).startswith("the cluster does not answer (ray client connection timeout); ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("search: the disk is full", "search: the disk is full"),
        (None, "its worker was lost, or could not import this project; the logs of the cluster say which"),
        (
            "Execution was interrupted: \x1b[36mray::run_trial()\x1b[39m\n  File ...\nModuleNotFoundError: No module named 'stages'\n",
            "Execution was interrupted: ray::run_trial() ... ModuleNotFoundError: No module named 'stages'",
        ),
    ],
)
def test_the_message_of_a_failed_trial_is_one_line(message: str | None, said: str) -> None:
    assert message_of(Failed(message=message)) == said


def test_the_plan_is_every_seed_with_every_point_of_the_grid_seed_by_seed() -> None:
    trials = plan([7, 1], {"search.epochs": 5}, {"search.channels": [4, 8]}, 3)
    assert list(map(str, trials)) == [
        f"seed {seed} search.channels={channels}" for seed in (7, 1) for channels in (4, 8)
    ]
    final = {"search.epochs": 5, "search.channels": 4, "search.seed": 7}
    assert trials[0].final == final
    assert trials[0].changes == {**final, "retrain.epochs": 3}
    assert len({trial.name for trial in trials}) == 4


def test_the_winner_has_the_best_score_and_among_equals_is_the_first() -> None:
    def won(*scores: float | None, metric: Metric = METRIC) -> int | None:
        best = winner(results(*scores), metric)
        return None if best is None else best.trial.seed

    assert won(0.5, 0.9, 0.7) == 1
    assert won(0.5, 0.9, 0.9) == 1
    assert won(None, 0.0, None) == 1
    assert won(None, None) is None
    lower = replace(METRIC, higher_is_better=False)
    assert won(0.5, 0.9, 0.4, 0.4, metric=lower) == 2
    assert won(0.0, None, 0.1, metric=lower) == 0


def test_trials_share_the_stages_that_no_varied_key_affects() -> None:
    def names(*keys: str) -> list[str]:
        return [stage.name for stage in without_effect(CHAIN, keys)]

    assert names("search.seed") == ["prepare"]
    assert names("discretize.epoch") == ["prepare", "search"]
    assert names("search.seed", "data.seed") == []
    assert names("retrain.epochs") == ["prepare", "search", "discretize"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--seeds 0", "seeds is 0; it should be how many"),
        ("--seeds 1,1", "seeds is [1, 1]"),
        ("--seeds some", "--seeds is 'some'"),
        ("--seeds=-1,", "search.seed is -1"),
        ("-S search.seed=3", "give its values as seeds"),
        ("-S search.sed=3", "did you mean search.seed?"),
        ("--grid search.channels", "write it as KEY=VALUE,VALUE"),
        ("--grid search.channels=4,4", "a list without repetitions"),
        ("--grid search.channels=4,many", "search.channels is 'many'"),
        ("--grid search.channels=4 -S search.channels=8", "it should be in one of them"),
        ("--grid retrain.channels=4,8", "has no effect up to discretize"),
        ("--grid retrain.epochs=4,8 --rank-by short-retrain", "use ranking_epochs"),
        ("--grid export.opset=18,20 --rank-by short-retrain", "has no effect up to retrain"),
        ("--ranking-epochs 2", "it needs rank_by to be short-retrain"),
        ("--rank-by short-retrain --ranking-epochs 0", "retrain.epochs is 0"),
        ("--workers 0", "workers is 0; it should be 1 or more"),
        ("--address ray://head:10001", "it should be ray or dask"),
        ("--runner ray --address ray://head:10001 --workers 3", "has its own number of workers"),
    ],
)
def test_a_wrong_request_is_one_line_and_starts_nothing(
    arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("pipelines.sweep.run_flow", lambda _: pytest.fail("the flow was started"))
    assert main(arguments.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: sweep: ")
    assert said in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_a_runner_that_is_not_installed_is_one_line(
    name: RunnerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, RUNNERS[name].module, None)
    with pytest.raises(
        UserError, match=f"runner is {name}, which is not installed .*; `make clusters` installs it"
    ):
        task_runner(name, None, None)


def test_a_short_retraining_is_a_tenth_of_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    request = checked(1, {"retrain.epochs": 40}, {"retrain.channels": [4, 8]}, "short-retrain", None)
    assert [trial.changes["retrain.epochs"] for trial in request.trials] == [4, 4]
    assert [trial.final["retrain.epochs"] for trial in request.trials] == [40, 40]
    assert request.chain[-1].name == "retrain"


def test_trials_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cores_per_trial(3) == {"OMP_NUM_THREADS": "2"}
    assert cores_per_trial(20) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cores_per_trial(3) == {"OMP_NUM_THREADS": "5"}


def test_table_and_picture_show_every_trial_with_the_winner_and_the_failed(tmp_path: Path) -> None:
    trials = plan([0, 1], {}, {"search.channels": [4, 8]}, None)
    found = [
        Result(trial, "ran", 0.5 + 0.1 * place, others={"balanced_accuracy": 0.3})
        for place, trial in enumerate(trials[:3])
    ]
    found.append(Result(trials[3], "failed", None, "search: a | b"))
    best = winner(found, METRIC)
    picture = tmp_path / "trials.png"
    sweep_report.draw(picture, found, best, "search", METRIC)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = sweep_report.markdown(found, best, "search", picture, "http://page", METRIC)
    lines = text.splitlines()
    assert "**seed 1 search.channels=4** has won" in lines[0]
    assert "| seed | search.channels | validation accuracy of the search | balanced accuracy |  |" in lines
    assert "| 1 | 4 | 0.7000 | 0.3000 | **winner** |" in lines
    assert "| 1 | 8 | failed |  | search: a \\| b |" in lines
    rows = sweep_report.rows(found, best, METRIC)
    assert [row["winner"] for row in rows] == [False, False, True, False]
    assert [row["search.channels"] for row in rows] == [4, 8, 4, 8]
    assert [row["valid_balanced_accuracy"] for row in rows] == [0.3, 0.3, 0.3, None]


def test_trials_are_ranked_by_the_metric_of_the_settings(tmp_path: Path) -> None:
    """Two trials, of which the second has the better recalls and the lower accuracy."""
    accuracies, recalls = (0.95, 0.9), (0.5, 0.8)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, accuracy, recall in zip(folders, accuracies, recalls, strict=True):
        write_params(folder_of(folder) / "params.yaml", {"discretize.epoch": "best"})
        summary = {
            **{f"{name}_accuracy": 0.1 for name in ("supernet", "discretized", "valid")},
            "valid_balanced_accuracy": 0.1,
            "discretization_gap": 0.0,
            "epoch": 2,
            "best_epoch": 1,
            "best_valid_accuracy": accuracy,
            "best_valid_balanced_accuracy": recall,
        }
        (folder_of(folder / "artifacts/search") / "summary.json").write_text(json.dumps(summary))
        metrics = {
            "test_accuracy": 0.1,
            "test_balanced_accuracy": 0.1,
            "best_epoch": 1,
            "params": 1,
            "valid_accuracy": accuracy + 0.01,
            "valid_balanced_accuracy": recall + 0.01,
        }
        (folder_of(folder / "artifacts/retrain") / "metrics.json").write_text(json.dumps(metrics))
    trials = plan([0, 1], {}, {}, None)
    for metric, best in (("accuracy", 0), ("balanced_accuracy", 1)):
        request = checked(2, {"registry.metric": metric}, {}, "search", None)
        assert request.metric.name == metric
        ways: list[tuple[RankBy, float]] = [("search", 0.0), ("short-retrain", 0.01)]
        for rank_by, more in ways:
            measured = [scores(folder, rank_by) for folder in folders]
            assert measured[0] == {"accuracy": 0.95 + more, "balanced_accuracy": 0.5 + more}
            found = [
                Result(trial, "ran", by_metric[metric])
                for trial, by_metric in zip(trials, measured, strict=True)
            ]
            assert winner(found, request.metric) is found[best]


def folder_of(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("params", "grid", "inactive"),
    [
        ({}, {"search.perturbation.steps": [1, 2]}, "search.perturbation.steps"),
        ({"search.strategy": "darts"}, {"search.mean_shift.bandwidth": [0.5, 1.0]}, "bandwidth"),
        ({}, {"search.early_stopping.limit": [1, 2]}, "search.early_stopping.limit"),
    ],
)
def test_a_key_that_other_settings_turn_off_is_not_varied(
    params: dict[str, object], grid: dict[str, list[object]], inactive: str
) -> None:
    with pytest.raises(UserError, match=f"{inactive} has no effect, because other settings turn it off"):
        checked(2, params, grid, "search", None)


def test_a_key_that_some_trials_use_may_be_varied() -> None:
    grid = {"search.strategy": ["ms-darts", "sdarts-adv"], "search.perturbation.steps": [3, 7]}
    assert len(checked([0], {}, grid, "search", None).trials) == 4
