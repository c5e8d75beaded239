"""What a sweep over budgets asks for, shares and shows; nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines import sweep_report
from pipelines.graph import stages, without_effect
from pipelines.sweep_latency import front_of, share_table
from pipelines.sweep_request import MEASURE, checked, grid_from
from pipelines.trials import Result, plan, winner
from stages.found_latency import FoundLatency, Tried
from stages.images.params import METRIC
from stages.plumbing.settings import load
from tests.pipelines.test_sweep_request import folder_of
from tests.stages.conftest import ROOT


def test_a_sweep_over_budgets_measures_in_every_trial_and_null_is_no_budget() -> None:
    request = checked(1, {}, dict([grid_from("latency.budget_ms=1,2.5,null")]), "search", None)
    assert [trial.point for trial in request.trials] == [{"latency.budget_ms": ms} for ms in (1, 2.5, None)]
    assert [str(trial) for trial in request.trials][-1] == "seed 0 latency.budget_ms=null"
    settings = [load(ROOT / "params.yaml", trial.changes).latency for trial in request.trials]
    assert [each.budget_ms for each in settings] == [1, 2.5, None] and all(each.known() for each in settings)
    assert len({json.dumps(each.of_table()) for each in settings}) == 1  # one table serves all
    asked = checked(1, {MEASURE: False}, {"latency.budget_ms": [1, None]}, "search", None)
    assert [trial.changes[MEASURE] for trial in asked.trials] == [False, False]
    assert MEASURE not in checked(1, {}, {"search.channels": [4, 8]}, "search", None).params


def test_trials_with_other_budgets_share_the_stage_measure() -> None:
    chain = stages(ROOT, "discretize")
    assert {stage.name: stage.always for stage in chain}["measure"]
    shared = [stage.name for stage in without_effect(chain, ["search.seed", "latency.budget_ms"])]
    assert shared == ["prepare", "measure"]
    assert [stage.name for stage in without_effect(chain, ["search.space"])] == ["prepare"]
    (measure,) = (stage for stage in chain if stage.name == "measure")
    config = load(ROOT / "params.yaml", {MEASURE: True}).latency
    assert set(measure.params) == {f"latency.{key}" for key in config.of_table()} | {"search.space"}


def test_a_trial_takes_the_table_that_was_made_for_all(tmp_path: Path) -> None:
    base, trial = tmp_path / "base", tmp_path / "trial"

    def table(folder: Path, identity: str | None) -> None:
        content = {} if identity is None else {"identity": identity}
        (folder_of(folder / "artifacts/latency") / "latency.json").write_text(json.dumps(content))

    def identity() -> str | None:
        return json.loads((trial / "artifacts/latency/latency.json").read_text()).get("identity")

    share_table(base, trial)  # neither has one
    assert not trial.exists()
    table(base, "new")
    share_table(base, trial)
    assert identity() == "new"
    (trial / "artifacts/latency/own").touch()
    share_table(base, trial)
    assert (trial / "artifacts/latency/own").exists()  # the same one is left alone
    table(base, None)
    share_table(base, trial)
    assert identity() == "new"
    table(base, "newer")
    share_table(base, trial)
    assert identity() == "newer" and not (trial / "artifacts/latency/own").exists()


def test_the_front_is_shown_where_latencies_are_known(tmp_path: Path) -> None:
    trials = plan([0], {}, {"latency.budget_ms": [1, 2, None]}, None)
    genotype = folder_of(tmp_path / "artifacts/genotype") / "genotype.json"
    genotype.write_text("{}")

    def latency(budget: float | None, *ms: float) -> FoundLatency:
        tried = [Tried(genotype={}, predicted_ms=taken - 0.1, measured_ms=taken) for taken in ms]
        return FoundLatency(
            measured_here=True, processor="board", threads=1, batch_size=1, budget_ms=budget,
            tried=tried, chosen=len(ms) - 1,
        )  # fmt: skip

    found = [
        Result(trials[0], "ran", 0.7, latency=latency(1, 1.5, 0.9)),
        Result(trials[1], "failed", None, "search: no"),
        Result(trials[2], "ran", 0.8, latency=latency(None, 4.0)),
    ]
    best = winner(found, METRIC)
    front = front_of(found, best, "search", METRIC, lambda _: tmp_path)
    assert front is not None
    assert [(point.budget_ms, point.latency_ms, point.winner) for point in front.points] == [
        (1, 0.9, False),
        (None, 4.0, True),
    ]
    assert front.device == "board, 1 thread, 1 case per call"
    rows = sweep_report.rows(found, best, METRIC)
    assert [(row["latency_ms"], row["predicted_latency_ms"]) for row in rows] == [
        (0.9, 0.8),
        (None, None),
        (4.0, 3.9),
    ]
    written = sweep_report.write_front(tmp_path, front, METRIC)
    assert [path.name for path in written] == ["front.csv", "front.png"]
    assert written[0].read_text().count("True") == 2 + 2 + 1  # measured, front, winner
    text = sweep_report.front_in_words(front, written[1], METRIC)
    assert (
        "| seed 0 latency.budget_ms=null (winner) | none | 4 | measured | 80.00% | yes |" in text.splitlines()
    )
    assert "latency.budget_ms=null" in sweep_report.markdown(
        found, best, "search", written[1], "page", METRIC
    )
    assert front_of(found[1:], best, "search", METRIC, lambda _: tmp_path) is None  # one point is no front
    assert "latency_ms" not in sweep_report.rows([found[1]], None, METRIC)[0]
