"""After the search: a network that misses the budget is replaced by the next best one, as measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from models.images.spaces import search_space
from models.search.genotype import Genotype
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import Predictor
from stages.evaluation import Metric
from stages.found_latency import FoundLatency, Tried, is_device, read_found, rows, sentences
from stages.images.params import METRIC
from stages.latencies import LatencyRecord, Measurement, Qualities
from stages.measuring import here
from stages.measuring.found import ATTEMPTS, Attempts, alive, notice
from tests.stages.conftest import ROOT, TINY, write_params

RunStage = Callable[..., int]
MS = {"max_pool_3x3": 1.0, "avg_pool_3x3": 1.1, "skip_connect": 0.2, "sep_conv_3x3": 3.0, "sep_conv_5x5": 5.0,
      "dil_conv_3x3": 2.0, "dil_conv_5x5": 3.5}  # fmt: skip
LATENCY = {**TINY, "latency.samples": 60, "latency.held_out": 10, "latency.repeated": 0, "latency.rounds": 1}


def edge(number: int) -> Genotype:
    """One of many genotypes of a made-up space."""
    return Genotype("made-up", {"cell": ((number, number + 1, "op"),)})


class Device:
    """Networks that are predicted to take 9, 8, 7, ... ms, and take ``slower`` times as long."""

    def __init__(self, slower: float | dict[int, float] = 1.0, learns: bool = False):
        self.slower, self.learns = slower, learns
        self.tables: list[list[float]] = []
        self.limits: list[float] = []

    def ms(self, genotype: Genotype) -> float:
        return 9.0 - genotype.groups["cell"][0][0]

    def measured(self, genotype: Genotype) -> tuple[float, float]:
        number = genotype.groups["cell"][0][0]
        factor = self.slower.get(number, 1.0) if isinstance(self.slower, dict) else self.slower
        return factor * self.ms(genotype), 0.01

    def attempts(self, budget_ms: float | None, tolerance: float = 0.1, *, at_home: bool = True) -> Attempts:
        def predict(_: Predictor, genotype: Genotype) -> float:
            known = self.learns and self.tables
            return self.measured(genotype)[0] if known else self.ms(genotype)

        def candidate(predictor: Predictor, limit_ms: float, tried: Collection[Genotype]) -> Genotype | None:
            self.limits.append(limit_ms)
            left = [edge(number) for number in range(9) if edge(number) not in tried]
            return next((genotype for genotype in left if predict(predictor, genotype) <= limit_ms), None)

        def refit(rows: Sequence[Measurement]) -> Predictor:
            self.tables.append([row.ms for row in rows])
            return Predictor("made-up", [])

        measure = self.measured if at_home else None
        return Attempts(budget_ms, tolerance, Predictor("made-up", []), predict, candidate, refit, measure)


def tried(attempts: Attempts) -> list[int]:
    return [attempt.genotype.groups["cell"][0][0] for attempt in attempts.made]


def test_the_network_of_the_mix_is_taken_when_it_keeps_to_the_budget() -> None:
    device = Device(slower=1.09)
    attempts = device.attempts(9.0)
    assert attempts.run(edge(0)) == 0 and tried(attempts) == [0]  # 9.81 ms are within 10% of 9 ms
    assert device.tables == []
    assert notice(9.0, attempts, 0, None) is None


def test_a_cell_without_a_path_is_not_taken_however_fast_it_is() -> None:
    space, op = search_space("nasbench201"), "nor_conv_3x3"
    places = [(edge.src, edge.dst) for edge in space.groups["cell"]]

    def cell(*none: tuple[int, int]) -> Genotype:
        edges = tuple((src, dst, "none" if (src, dst) in none else op) for src, dst in places)
        return Genotype(space.family, {"cell": edges})

    dead, live = cell((0, 3), (1, 3), (2, 3)), cell((0, 3), (1, 3))
    assert not Encoding(space).leads(dead) and Encoding(space).leads(live)
    device = Device()
    assert alive(space, live, device.attempts(5.0)) == live
    assert alive(space, dead, device.attempts(5.0)) == edge(4), "the best that is predicted within the budget"
    assert device.limits == [5.0]
    assert alive(space, dead, device.attempts(None)) == dead, "without a budget, the search decides"
    assert alive(space, dead, device.attempts(0.5)) == dead, "there is no other"


def test_what_misses_the_budget_joins_the_table_and_the_next_best_within_it_is_tried() -> None:
    device = Device({0: 1.2, 2: 1.3}, learns=True)
    attempts = device.attempts(7.0)
    chosen = attempts.run(edge(0))
    # 0 takes 10.8 ms. After that the predictor knows that 1 takes 8 and 2 takes 9.1, so 3 with 6 ms is next.
    assert tried(attempts) == [0, 3] and chosen == 1
    assert device.tables == [[pytest.approx(10.8)]]
    assert attempts.made[1].times == (6.0, 0.01)


def test_where_all_networks_take_longer_than_predicted_the_next_is_predicted_as_much_faster() -> None:
    device = Device(slower=1.5)  # and the predictor does not learn it
    attempts = device.attempts(7.0, tolerance=0.0)
    chosen = attempts.run(edge(2))
    assert device.limits == [pytest.approx(7.0 / 1.5)]
    assert tried(attempts) == [2, 5] and attempts.made[chosen].ms == 6.0
    assert len(device.tables) == 1


def test_after_some_attempts_the_fastest_is_taken_and_a_notice_says_what_it_misses() -> None:
    class Stubborn(Device):
        def measured(self, genotype: Genotype) -> tuple[float, float]:
            return {3: 5.0}.get(genotype.groups["cell"][0][0], 6.0), 0.01

        def attempts(self, *arguments: Any, **named: Any) -> Attempts:
            made = super().attempts(*arguments, **named)
            made.candidate = lambda _, limit, tried: edge(len(tried))
            return made

    device = Stubborn()
    attempts = device.attempts(1.0)
    chosen = attempts.run(edge(0))
    assert tried(attempts) == list(range(ATTEMPTS)) and chosen == 3
    assert len(device.tables) == ATTEMPTS - 1 and device.tables[-1] == [6.0, 6.0, 6.0, 5.0, 6.0, 6.0, 6.0]
    said = notice(1.0, attempts, chosen, "board")
    assert said is not None and "\n" not in said
    assert said.startswith(
        "latency.budget_ms is 1, but the found network takes 5 ms, the least of 8 networks"
    )


def test_a_network_that_misses_the_budget_is_measured_once_more() -> None:
    device = Device()
    attempts = device.attempts(9.0)
    times = iter([(12.0, 0.5), (9.5, 0.1), (1.0, 0.0)])
    attempts.measure = lambda _: next(times)
    assert attempts.run(edge(0)) == 0 and attempts.made[0].times == (9.5, 0.1)
    assert list(times) == [(1.0, 0.0)] and device.tables == []


def test_on_another_device_the_prediction_decides_without_tolerance_and_a_notice_says_so() -> None:
    device = Device(slower=2.0)
    attempts = device.attempts(8.5, tolerance=0.5, at_home=False)
    chosen = attempts.run(edge(0))
    assert tried(attempts) == [0, 1] and attempts.made[chosen].times is None
    assert device.tables == [] and device.limits == [8.5]
    said = notice(8.5, attempts, chosen, "Raspberry Pi 5")
    assert said is not None and "by prediction only (8 ms)" in said and "Raspberry Pi 5" in said


def test_without_a_budget_the_network_is_measured_and_nothing_else_happens() -> None:
    device = Device(slower=3.0)
    attempts = device.attempts(None)
    assert attempts.run(edge(0)) == 0 and attempts.made[0].times == (27.0, 0.01)
    assert device.limits == [] and notice(None, attempts, 0, None) is None


def found(*tried: Tried, chosen: int = 0, **changes: Any) -> FoundLatency:
    about = {"measured_here": True, "device": "Linux", "processor": "board", "threads": 1, "batch_size": 1}
    return FoundLatency.model_validate({**about, "tried": tried, "chosen": chosen, **changes})


def test_the_record_is_what_it_was_after_it_has_been_written_and_read(tmp_path: Path) -> None:
    record = found(
        Tried(genotype={"space": "darts"}, predicted_ms=4.0, measured_ms=5.0, measured_ms_spread=0.1),
        Tried(genotype={"space": "darts"}, predicted_ms=3.0),
        budget_ms=3.0,
        tolerance=0.1,
        chosen=1,
    )
    error = Metric("error", "window", higher_is_better=False, outcomes="numbers")
    record.write(tmp_path / "latency.json", error)
    again = read_found(error, tmp_path / "latency.json")
    assert (
        again == record
        and again is not None
        and again.found.ms == 3.0
        and again.most_ms == pytest.approx(3.3)
    )
    assert [each.ms for each in again.tried] == [5.0, 3.0] and again.how == "predicted"
    assert read_found(error, tmp_path / "nothing.json") is None
    assert is_device(record, {"device": "Linux", "processor": "board", "governor": "another"})
    assert not is_device(record, {"device": "Linux", "processor": "another"})


def test_card_and_report_say_what_is_known_and_leave_out_what_is_not() -> None:
    quality = Qualities(mean_relative_error=0.325, within_10_percent=0.2, spearman=0.9, kendall_tau=0.8)
    own: dict[str, Any] = {
        "mean_relative_error": 0.049,
        "within_10_percent": 0.9,
        "spearman": 0.99,
        "kendall_tau": 0.93,
    }
    table = LatencyRecord(
        kind="ensemble", samples=1000, held_out=100, origin="kit.csv", additive=quality, flops=None, **own
    )
    assert rows(table) == [
        ("predictor", "4.9%", "90%", "0.990", "0.930"),
        ("additive table", "32.5%", "20%", "0.900", "0.800"),
    ]
    slow = Tried(genotype={}, predicted_ms=2.0, measured_ms=4.0, measured_ms_spread=0.1)
    kept = Tried(genotype={}, predicted_ms=2.0, measured_ms=3.1, measured_ms_spread=0.1)
    said = " ".join(sentences(found(slow, kept, chosen=1, budget_ms=3.0, tolerance=0.1), table, 3.2))
    for words in ("takes 3.1 ms on board (1 thread, 1 case per call", "Predicted were 2 ms", "3.2 ms under the same",
                  "budget is 3 ms, with a tolerance of 10%", "2 networks were tried", "4, 3.1 ms", "knows 900"):  # fmt: skip
        assert words in said, words
    assert "differ by" not in said
    predicted = " ".join(sentences(found(Tried(genotype={}, predicted_ms=2.0)), table, None))
    assert "is predicted to take 2 ms" in predicted and "There was no budget." in predicted
    assert "under the same" not in predicted and "were tried" not in predicted


def test_discretize_imports_nothing_that_measures_before_it_is_asked_to() -> None:
    program = (
        "import sys, stages.discretize\n"
        "assert 'stages.measuring.found' not in sys.modules and 'onnxruntime' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def fake(slower: dict[str, float]) -> Callable[[Any, Sequence[Genotype]], list[tuple[float, float]]]:
    """A bench on which networks take the sum of their operations' times; some operations ``slower`` than before."""

    def measured(_: here.Bench, genotypes: Sequence[Genotype]) -> list[tuple[float, float]]:
        def ms(genotype: Genotype) -> float:
            return sum(
                MS[op] * slower.get(op, 1.0) for edges in genotype.groups.values() for _, _, op in edges
            )

        return [(ms(genotype), 0.01) for genotype in genotypes]

    return measured


def test_the_chain_finds_another_network_where_the_first_is_slower_than_the_table_says(
    finished_copy: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setattr(here.Bench, "__call__", fake({}))
    write_params(finished_copy / "params.yaml", {**LATENCY, "latency.always": True})
    assert run_stage("measure") == 0 and run_stage("discretize") == 0
    genotype_json = Path("artifacts/genotype/genotype.json")
    first, alone = read_found(METRIC), genotype_json.read_bytes()
    assert first is not None and first.attempts == 1 and first.budget_ms is None
    assert first.found.measured_ms == pytest.approx(first.found.predicted_ms, rel=0.1)
    assert first.found.measured_ms is not None
    budget = 0.9 * first.found.measured_ms
    write_params(
        finished_copy / "params.yaml", {**LATENCY, "latency.budget_ms": budget, "latency.tolerance": 0.01}
    )
    # Since the table was made, all networks have become slower by a quarter.
    monkeypatch.setattr(here.Bench, "__call__", fake(dict.fromkeys(MS, 1.25)))
    assert run_stage("discretize") == 0
    record, content = read_found(METRIC), json.loads(genotype_json.read_text())
    assert record is not None and 2 <= record.attempts <= ATTEMPTS and record.chosen == record.attempts - 1
    assert record.tried[0].genotype == json.loads(alone) and record.found.genotype == content != json.loads(
        alone
    )
    assert record.found.measured_ms is not None and record.found.measured_ms <= 1.01 * budget
    assert all((each.measured_ms or 0) > 1.01 * budget for each in record.tried[:-1])
    (run,) = MlflowClient(tracking_uri=store).search_runs(
        [MlflowClient(tracking_uri=store).get_experiment_by_name("tests").experiment_id],  # type: ignore[union-attr]
        f"tags.stage = 'discretize' and tags.latency_attempts = '{record.attempts}'",
        max_results=1,
    )
    assert run.data.metrics["latency_measured_ms"] == record.found.measured_ms
    assert run.data.metrics["latency_budget_ms"] == pytest.approx(budget)
    # Without a budget again, the genotype is what it was, byte for byte.
    write_params(finished_copy / "params.yaml", TINY)
    assert run_stage("discretize") == 0
    assert genotype_json.read_bytes() == alone and not Path("artifacts/genotype/latency.json").exists()


def test_a_refit_believes_what_was_measured_here(
    finished_copy: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import tasks
    from stages.latencies import read_predictor, read_record
    from stages.measuring.found import refitting
    from stages.plumbing.settings import load

    monkeypatch.setattr(here.Bench, "__call__", fake({}))
    write_params(finished_copy / "params.yaml", {**LATENCY, "latency.always": True})
    assert run_stage("measure") == 0
    space, params = search_space("s5"), load()
    architectures = tasks.architectures("images")
    genotype = architectures.genotype_of(json.loads(Path("artifacts/genotype/genotype.json").read_text()))
    code = Encoding(space).encode(genotype)[None]
    before = float(read_predictor(space)(code))
    refit = refitting(params.latency, space, read_record(METRIC), architectures)
    after = float(refit([Measurement(genotype, 2 * before, 0.01)])(code))
    assert before < after <= 2.2 * before
    assert float(refit([Measurement(genotype, before, 0.01)])(code)) == pytest.approx(before, rel=0.05)


def test_where_no_network_is_fast_enough_the_fastest_of_the_table_is_tried(
    finished_copy: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.Bench, "__call__", fake({}))
    write_params(finished_copy / "params.yaml", {**LATENCY, "latency.always": True})
    assert run_stage("measure") == 0
    write_params(finished_copy / "params.yaml", {**LATENCY, "latency.budget_ms": 0.5})  # below any network
    assert run_stage("discretize") == 0
    record = read_found(METRIC)
    assert record is not None and record.attempts == 2 and record.chosen == 1
    skips = [edges for name, edges in record.found.genotype.items() if name in ("normal", "reduce")]
    assert {op for edges in skips for op, _ in edges} == {"skip_connect"}  # a corner of the space
    assert record.notice is not None and "the least of 2 networks tried" in record.notice


def test_a_budget_without_measurements_is_one_line(
    finished_copy: Path, run_stage: RunStage, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(finished_copy / "params.yaml", {**LATENCY, "latency.budget_ms": 3})
    assert run_stage("discretize") == 2
    assert "artifacts/latency/latency.json is missing" in capsys.readouterr().err
    Path("artifacts/latency").mkdir(exist_ok=True)
    Path("artifacts/latency/latency.json").write_text("{}")
    assert run_stage("discretize") == 2
    error = capsys.readouterr().err
    assert "artifacts/latency holds no measurements; `dvc repro measure` makes them" in error
    assert error.count("\n") == 1
