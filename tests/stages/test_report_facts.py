"""The report's figures: intervals, one latency, and the champion's comparison in at most six rows."""

from __future__ import annotations

from typing import Any

import pytest

from stages.contracts import Words
from stages.found_latency import FoundLatency, Tried
from stages.images.params import METRIC
from stages.intervals import in_words, wilson
from stages.records import ExportRecord, SearchSummary
from stages.registry.record import RegistryRecord
from stages.report_facts import gap_sentence, headline_latency, pace, tiles, times, versus

CASES = 359


def registered(**changes: Any) -> RegistryRecord:
    """A record of version 3, which was compared with version 2."""
    compared = {
        "test_accuracy": 350 / CASES, "test_balanced_accuracy": 0.97, "latency_ms": 0.25, "size_bytes": 400_000, "gain": 0.01,
        "only_challenger_right": 7, "only_champion_right": 2, "p_value": 0.18, "exceeds_noise": False,
    }  # fmt: skip
    content = {
        "model": "digits", "version": 3, "promoted": True, "reason": "champion", "refusals": [], "aliases": ["champion"],
        "champion_before": 2, "champion_after": 3, "metric": "accuracy", "test_accuracy": 355 / CASES,
        "test_balanced_accuracy": 0.98, "latency_ms": 0.32, "size_bytes": 500_000, "compared": compared,
        "test_sha256": "0", "gate": {}, "model_sha256": "1", "data_sha256": "2", "dvc_lock_sha256": None,
        "git_commit": "3", "prefect_flow_run": None, "runs": {},
    }  # fmt: skip
    return RegistryRecord.model_validate({**content, **changes})


def exported(**changes: Any) -> ExportRecord:
    content = {
        "test_cases": CASES, "test_score": 355 / CASES, "largest_difference": 1e-6, "threads": 2, "size_bytes": 500_000,
        "latency_ms": {"torch_batch_1": 1.2, "onnxruntime_batch_1": 0.4, "onnxruntime_batch_64": 5.0, "torch_batch_64": 4.0},
        "params": 1000, "model_sha256": "1",
    }  # fmt: skip
    return ExportRecord.model_validate({**content, **changes})


SUMMARY = SearchSummary(
    supernet_score=0.97, discretized_score=0.845, discretization_gap=0.125, epoch=1, valid_score=None,
    best_epoch=1, best_valid_score=None,
)  # fmt: skip


def test_wilson_is_the_published_interval_and_never_empty() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, cases, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)
    ):  # fmt: skip
        assert wilson(right, cases) == pytest.approx((low, high), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)
    assert in_words(355 / CASES, CASES) == "97.2 to 99.6%"


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (1.28, 1.0, "28% slower"),
        (0.78, 1.0, "22% faster"),
        (1.001, 1.0, "as fast"),
        (4.2, 1.0, "takes 4.2 times as long"),
        (100.4, 1.0, "takes 100 times as long"),
    ],
)
def test_a_ratio_of_times_is_told_as_a_person_would(ours: float, theirs: float, words: str) -> None:
    assert pace(ours, theirs) == words


def test_champion_and_challenger_are_compared_in_six_rows() -> None:
    record = registered()
    latency = headline_latency(exported(), record, None, METRIC)
    assert versus(record, CASES, METRIC, latency) == [
        ("test accuracy", "98.9% (97.2 to 99.6%)", "97.5% (95.3 to 98.7%)"),
        ("test balanced accuracy", "98.0%", "97.0%"),
        ("images that only it answers rightly", "7", "2"),
        ("difference", "may be noise (p = 0.18)", ""),
        ("time", "0.32 ms: 28% slower", "0.25 ms"),
        ("size", "0.50 MB", "0.40 MB"),
    ]
    alone = versus(registered(compared=None, champion_before=None), CASES, METRIC, latency)
    assert [row[0] for row in alone] == ["test accuracy", "test balanced accuracy", "time", "size"]
    assert all(row[2] == "" for row in alone)


def test_there_is_one_latency_and_it_names_its_conditions() -> None:
    record, budgeted = registered(), registered(budgeted_latency_ms=2.9)
    found = FoundLatency(
        budget_ms=3, measured_here=True, threads=1, batch_size=1, runtime="ONNX Runtime 1.23", processor="CPU X",
        tried=[Tried(genotype={}, predicted_ms=2.5, measured_ms=2.7)], chosen=0,
    )  # fmt: skip
    none = exported(latency_ms={})
    for registry, about, text, words in (
        (record, None, "0.32 ms", "one per call, on all cores (median, when it was registered)"),
        (registered(latency_ms=None), None, "0.4 ms", "on 2 threads (median, when it was exported)"),
        (
            record,
            found,
            "2.7 ms",
            "of at most 3 ms, measured (1 thread, 1 case per call, ONNX Runtime 1.23; CPU X)",
        ),
        (budgeted, found, "2.9 ms", "of at most 3 ms, measured when it was registered (1 thread"),
        (record, found.model_copy(update={"budget_ms": None}), "0.32 ms", "when it was registered"),
    ):
        latency = headline_latency(exported(), registry, about, METRIC)
        assert latency is not None and latency.text == text and words in latency.meaning
        shown = tiles(exported(), SUMMARY, CASES, METRIC, latency, Words())
        assert [value for value, _ in shown if value.endswith(" ms")] == [text]
        rows = versus(registry, CASES, METRIC, latency)
        ours = next(row[1] for row in rows if row[0] == "time") if registry.latency_ms else text
        assert ours.startswith(text) or " ms" not in ours
    assert headline_latency(none, registered(latency_ms=None), None, METRIC) is None


def test_times_at_export_are_ratios() -> None:
    assert times(exported(), METRIC) == [
        {"what": "time for 1 image", "torch": "takes 3.0 times as long", "int8": ""},
        {"what": "time for 64 images", "torch": "20% faster", "int8": ""},
    ]


def test_the_gap_is_a_sentence() -> None:
    assert "its validation accuracy goes from 97.0% to 84.5%." in gap_sentence(SUMMARY, METRIC, Words())
