"""The front of a sweep: which trials are on it, what is written, and when the report shows it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import front, pictures
from stages.evaluation import Metric
from stages.front import Front, Point, best_of
from stages.images.params import METRIC
from stages.plumbing.files import GENOTYPE_JSON, sha256_of

ERROR = Metric("error", "window", higher_is_better=False, outcomes="numbers")
repeatable = settings(derandomize=True, deadline=None, database=None)


def point(latency_ms: float, score: float, **changes: object) -> Point:
    about = {
        "trial": f"seed 0 latency.budget_ms={latency_ms:g}",
        "experiment": "nas-1",
        "measured": True,
        "winner": False,
    }
    return Point.model_validate({**about, "latency_ms": latency_ms, "score": score, **changes})


def front_with(*points: Point, sha256: str = "") -> Front:
    return Front(
        genotype_sha256=sha256, ranked_by="validation accuracy", device="board, 1 thread", points=list(points)
    )


@repeatable
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12), st.booleans())
def test_the_front_is_what_no_other_trial_beats(pairs: list[tuple[int, int]], higher: bool) -> None:
    metric = dataclasses.replace(METRIC, higher_is_better=higher)
    points = [point(latency, score) for latency, score in pairs]
    best = best_of(points, metric)

    def beats(one: Point, other: Point) -> bool:
        as_good = metric.gain(one.score, other.score) >= 0 and one.latency_ms <= other.latency_ms
        return as_good and (one.score, one.latency_ms) != (other.score, other.latency_ms)

    expected = {(p.latency_ms, p.score) for p in points if not any(beats(other, p) for other in points)}
    assert {(p.latency_ms, p.score) for p in best} == expected
    assert [p.latency_ms for p in best] == sorted(p.latency_ms for p in best)


def test_table_and_picture_have_every_trial() -> None:
    found = front_with(
        point(1.0, 0.8, budget_ms=1.0),
        point(2.0, 0.7, budget_ms=2.0, measured=False),
        point(3.0, 0.9, winner=True),
    )
    heads, rows = front.table(found, METRIC)
    assert len(heads) == len(rows[0]) == 6
    assert rows == [
        ("seed 0 latency.budget_ms=1", "1", "1", "measured", "80.00%", "yes"),
        ("seed 0 latency.budget_ms=2", "2", "2", "predicted", "70.00%", "no"),
        ("seed 0 latency.budget_ms=3 (winner)", "none", "3", "measured", "90.00%", "yes"),
    ]
    drawing = pictures.svg(front.draw, found, METRIC)
    for words in ("1 ms", "2 ms", "no budget", "trial, predicted", "winner", "board, 1 thread", "80.0%"):
        assert f">{words}" in drawing or words in drawing, words


def test_a_front_belongs_to_the_network_that_has_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert front.current(ERROR) is None
    GENOTYPE_JSON.parent.mkdir(parents=True)
    GENOTYPE_JSON.write_text("{}")
    found = front_with(point(1.0, 0.5), point(2.0, 0.4), sha256=sha256_of(GENOTYPE_JSON))
    front.write(tmp_path, found, ERROR)
    assert front.current(ERROR) == found
    GENOTYPE_JSON.write_text('{"space": "darts"}')
    assert front.current(ERROR) is None
