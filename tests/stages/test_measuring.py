"""What the stage measure is made of: the clock, the journal, which architectures are measured, and the fits."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.images.genotype import from_json, to_json
from models.images.spaces import SPACES, search_space
from models.search.genotype import Genotype
from models.search.latency.encoding import Encoding
from models.search.random_cells import edges_of, random_cells
from models.search.spaces import Edge, SearchSpace
from stages.measuring import bench
from stages.measuring.fitting import _line
from stages.measuring.here import round_sizes
from stages.measuring.journal import Journal, measured_by
from stages.measuring.sampling import Plan, corners, drawn_again


def cells(space: str, count: int, seed: int = 0) -> list[Genotype]:
    drawn = random_cells(search_space(space), torch.Generator().manual_seed(seed))
    return list(itertools.islice(drawn, count))


# The clock


class Clock:
    """Time that passes only while something runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def call(self, durations: Sequence[float], log: list[str], name: str):
        left = iter(itertools.cycle(durations))

        def run() -> None:
            log.append(name)
            self.now += next(left) / 1e3

        return run


def test_functions_take_turns_and_warm_up_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(monkeypatch), []
    calls = [clock.call([ms], log, name) for name, ms in (("a", 1.0), ("b", 3.0))]
    times = bench.timed(calls, repeats=16, warmup=1)
    assert "".join(log) == "aaabbb" * 8
    for turns, ms in zip(times, (1.0, 3.0), strict=True):
        assert [taken for turn in turns for taken in turn] == pytest.approx([ms] * 16) and len(turns) == 8
    assert [len(turn) for turn in bench.timed(calls[:1], repeats=5, warmup=0)[0]] == [1] * 5


def test_the_fastest_turn_counts_by_its_median_and_the_spread_is_that_of_all() -> None:
    ms, spread = bench.summary([[2.0, 9.0, 2.2], [1.0, 1.2, 8.0], [5.0, 5.0, 5.0]])
    assert ms == 1.2
    assert spread == pytest.approx((5.0 - 2.0) / 2)
    assert bench.summary([[4.0]]) == (4.0, 0.0)


def test_a_disturbed_network_gets_more_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(monkeypatch), []
    disturbed = [8.0, 4.0, 2.0, 2.6, 4.0, 5.0, 6.0, 7.0, 2.0]  # no two turns agree before the ninth
    durations = {"calm": [1.0], "disturbed": disturbed}
    runs = [clock.call(taken, log, name) for name, taken in durations.items()]
    sessions = [SimpleNamespace(run=lambda _, feed, call=call: call()) for call in runs]
    monkeypatch.setattr(bench, "session_of", lambda network, threads: sessions[network[0]])
    found = bench.measured([b"\0", b"\1"], {}, threads=1, repeats=8, warmup=0)
    assert [ms for ms, _ in found] == pytest.approx([1.0, 2.0])
    assert log.count("calm") == 8 and log.count("disturbed") == 16


def test_the_program_of_the_kit_is_python_3_8() -> None:
    source = Path(bench.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    standard = {
        "__future__",
        "csv",
        "io",
        "json",
        "os",
        "pathlib",
        "platform",
        "statistics",
        "sys",
        "time",
        "zipfile",
    }
    assert imported == standard | {"numpy", "onnxruntime"}


# The journal


def test_the_journal_repeats_nothing_and_survives_a_torn_line(tmp_path: Path) -> None:
    path, asked = tmp_path / "kept" / "measurements.jsonl", []

    def measure(values: Sequence[float]) -> list[tuple[float, float]]:
        asked.extend(values)
        return [(value, value / 10) for value in values]

    names = {f"name {number}": float(number) for number in range(20)}
    measured_by(Journal(path), dict(itertools.islice(names.items(), 12)), measure, lambda _: None)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name": "name 12", "tu')
    seen: list[int] = []
    found = measured_by(Journal(path), names, measure, seen.append)
    assert asked == [float(number) for number in range(20)]
    assert found == [(float(number), number / 10) for number in range(20)]
    assert seen[0] == 12 and seen[-1] == 20
    assert path.read_bytes().startswith(whole)
    again = Journal(path)
    measured_by(again, {"name 3": 3.0}, measure, lambda _: None, turn=2)
    assert len(again.found) == len(Journal(path).found) == 21 and asked[-1] == 3.0


# Which architectures


@pytest.mark.parametrize("name", SPACES)
def test_corners_have_one_operation_wherever_it_is_offered(name: str) -> None:
    space = search_space(name)
    found = corners(space)
    assert len({edges_of(genotype) for genotype in found}) == len(found) >= 2
    for genotype in found:
        assert from_json(to_json(genotype)) == genotype
        Encoding(space).encode(genotype)
    ops = {op for genotype in found for edges in genotype.groups.values() for _, _, op in edges}
    wanted = {op for edges in space.groups.values() for edge in edges for op in edge.ops}
    assert ops == wanted - ({"none"} if space.exclude_none else set())


def test_a_plan_draws_no_architecture_twice_and_the_same_again() -> None:
    def drawn() -> list[list[Genotype]]:
        plan = Plan(search_space("nasbench201"), seed=3)
        unsure = lambda genotypes: torch.arange(len(genotypes)).float()  # noqa: E731
        return [plan.held_out(10), plan.first(30), plan.unsure(5, unsure)]

    held_out, first, unsure = parts = drawn()
    assert [len(part) for part in parts] == [10, 30, 5]
    assert len({edges_of(genotype) for part in parts for genotype in part}) == 45
    assert drawn() == parts
    assert {edges_of(genotype) for genotype in corners(search_space("nasbench201"))} <= {
        edges_of(genotype) for genotype in first + held_out
    }
    # The least sure of four times as many: here the last ones.
    later = Plan(search_space("nasbench201"), seed=3)
    later.held_out(10)
    later.first(30)
    assert unsure == later.first(20)[-5:]


def test_a_plan_ends_with_the_space() -> None:
    edges = tuple(Edge(src, dst, ("none", "skip_connect", "conv")) for src, dst in ((0, 1), (0, 2), (1, 2)))
    plan = Plan(SearchSpace("small", "small", {"cell": edges}, incoming=None, exclude_none=True), seed=0)
    assert len(plan.first(50)) == 2**3
    assert plan.held_out(3) == []


def test_rounds_and_second_measurements() -> None:
    assert round_sizes(1000, 1) == [1000]
    assert round_sizes(1001, 3) == [500, 250, 251]
    assert sum(round_sizes(777, 4)) == 777
    again = drawn_again(cells("s5", 20), 5, seed=0)
    assert len(again) == len({str(genotype) for genotype in again}) == 5


# Fits


def test_the_line_through_multiply_accumulates() -> None:
    macs = torch.tensor([1e6, 2e6, 5e6, 9e6])
    torch.testing.assert_close(_line(macs, 0.5 + macs * 1e-7, torch.tensor([3e6])), torch.tensor([0.8]))
