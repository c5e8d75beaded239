"""Gaps are filled, parts follow each other in time, windows lie where they should, and nothing leaks from later parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.sequences.data import Step
from stages.sequences.prepare.splits import usual_season
from tests.stages.sequences.making import Prepared, hourly, prepared, refusal, table, waves


def several(**series: tuple[int, str]) -> str:
    """CSV of hourly series, one after the other: rows and the first hour."""
    lines = [
        f"{time},{name},{value}"
        for number, (name, (rows, start)) in enumerate(series.items())
        for time, value in zip(hourly(rows, start=start), waves(rows, number), strict=True)
    ]
    return "\n".join(["time,s,y", *lines])


def by_brute_force(
    made: Prepared, part: str, lookback: int, horizon: int, stride: int
) -> list[tuple[int, int]]:
    """All windows of a part, from the rule in words."""
    place = ("train", "val", "test").index(part)
    found = []
    for number, rows in enumerate(made.card.rows):
        first, begin, end = rows[0], rows[place], rows[place + 1]
        start = begin if part != "train" else first + lookback
        while part != "train" and start - lookback < first:
            start += 1
        found += [(forecast - lookback, number) for forecast in range(start, end - horizon + 1, stride)]
    return found


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_windows_are_those_of_the_rule(tmp_path: Path, stride: int | None) -> None:
    text = several(a=(50, "2026-01-01"), b=(37, "2026-01-01T06"), late=(30, "2026-01-01T16"))
    made = prepared(tmp_path, text, series="s", lookback=5, horizon=3, stride=stride)
    for part in ("train", "val", "test"):
        wanted = by_brute_force(made, part, 5, 3, 1 if part == "train" else stride or 3)
        origins, series = made[f"{part}_origins"], made[f"{part}_series"]
        assert list(zip(origins.tolist(), series.tolist(), strict=True)) == wanted
        assert made.card.counts[part] == len(wanted) > 0
        for origin, number in wanted:
            first, _, _, end = made.card.rows[number]
            assert first <= origin and origin + 8 <= end


def test_parts_follow_each_other_in_time_for_all_series_together(tmp_path: Path) -> None:
    made = prepared(tmp_path, several(a=(60, "2026-01-01"), b=(40, "2026-01-01T15")), series="s")
    times = made["times"]
    parts = [
        np.concatenate([times[rows[place] : rows[place + 1]] for rows in made.card.rows])
        for place in range(3)
    ]
    assert parts[0].max() < parts[1].min() and parts[1].max() < parts[2].min()
    assert [len(part) for part in parts] == pytest.approx([60, 20, 20], abs=2)


def test_nothing_that_training_uses_depends_on_later_rows(tmp_path: Path) -> None:
    """The later 40% of the rows are replaced: what comes from the training rows stays the same, bit for bit."""
    values = np.array([waves(100), waves(100, 1)])
    later = values.copy()
    later[:, 60:] = 1e6
    results = [
        prepared(tmp_path, table(hourly(100), *each, header="time,y,z"), covariates=["z"])
        for each in (values, later)
    ]
    first, second = results
    assert first.card.mean == second.card.mean and first.card.std == second.card.std
    np.testing.assert_array_equal(first["scales"], second["scales"])
    np.testing.assert_array_equal(first["values"][:60], second["values"][:60])
    np.testing.assert_array_equal(first["train_origins"], second["train_origins"])
    assert first["train_origins"].max() + 6 == 60
    np.testing.assert_allclose(first.card.mean, values[:, :60].mean(axis=1))
    np.testing.assert_allclose(first.card.std, values[:, :60].std(axis=1))


@pytest.mark.parametrize("season", [1, 7])
def test_scales_are_the_errors_of_repeating_the_season(tmp_path: Path, season: int) -> None:
    y = waves(80)
    made = prepared(tmp_path, table(hourly(80), y), season=season)
    expected = np.mean([abs(y[row] - y[row - season]) for row in range(season, 48)])
    np.testing.assert_allclose(made["scales"], [[expected]])


def test_gaps_are_filled_by_straight_lines_and_reported(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": waves(60), "z": waves(60, 1)}, index=pd.to_datetime(hourly(60)))
    frame.loc[frame.index[[7, 20, 21]], "z"] = np.nan
    gappy = frame.drop(frame.index[[30, 31, 45]])
    text = gappy.rename_axis("time").to_csv()
    made = prepared(tmp_path, text, covariates=["z"])
    wanted = gappy.resample("h").asfreq().interpolate()  # pandas, as the reference
    np.testing.assert_array_equal(made["values"], wanted.to_numpy(np.float32))
    assert made.card.filled == {"z": 3} and made.card.filled_rows == 3
    assert made.card.notices() == [
        "filled by straight lines: 3 missing rows and missing values (3 in z) (data.longest_gap)"
    ]
    assert "line 9, column 'z': 1 values are missing from here on" in refusal(
        tmp_path, frame.rename_axis("time").to_csv(), covariates=["z"], longest_gap=0
    )
    assert "2 rows are missing before this one, more than data.longest_gap (1)" in refusal(
        tmp_path, frame[["y"]].drop(frame.index[[30, 31]]).rename_axis("time").to_csv(), longest_gap=1
    )


def test_ends_without_values_are_left_out_and_reported(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": waves(60)}, index=pd.to_datetime(hourly(60)))
    frame.iloc[[0, 1, 59], 0] = np.nan
    made = prepared(tmp_path, frame.rename_axis("time").to_csv())
    np.testing.assert_array_equal(made["values"], frame.iloc[2:59].to_numpy(np.float32))
    assert made.card.rows[0][-1] == 57 and not made.card.filled
    assert made.card.notices() == ["3 rows at the ends of series are left out, because they lack values"]


def test_series_are_kept_apart_whatever_the_order_of_their_rows(tmp_path: Path) -> None:
    sorted_by_series = several(a=(50, "2026-01-01"), b=(45, "2026-01-01T05"))
    head, *lines = sorted_by_series.splitlines()
    by_time = "\n".join([head, *sorted(lines, key=lambda line: line[:19])])
    first, second = (prepared(tmp_path, text, series="s") for text in (sorted_by_series, by_time))
    assert first.card == second.card
    np.testing.assert_array_equal(first["values"], second["values"])
    line = refusal(tmp_path, "\n".join([head, *lines, lines[0]]), series="s")
    assert re.search("line 97 of the series 'a', column 'time': .* comes after", line), line
    assert "'2026-01-01 05:00:00' comes after" in refusal(tmp_path, sorted_by_series)
    assert "name the column of several series in data.series" in refusal(tmp_path, sorted_by_series)


def test_short_and_constant_series_are_left_out_or_refused(tmp_path: Path) -> None:
    text = several(long=(60, "2026-01-01"), short=(5, "2026-01-01")).splitlines()
    text += [f"{time},flat,7" for time in hourly(60)]
    made = prepared(tmp_path, "\n".join(text), series="s")
    assert made.card.series == ["long"]
    assert made.card.left_out == {
        "short": "5 training rows, 6 are needed",
        "flat": "its target y repeats itself exactly",
    }
    only_flat = [text[0], *(f"{time},{name},7" for name in ("a", "b") for time in hourly(60))]
    line = refusal(tmp_path, "\n".join(only_flat), series="s")
    assert "a target repeats itself exactly in the training part, for example 'a'" in line
    only_short = several(a=(9, "2026-01-01"), b=(8, "2026-01-01"))
    assert "the longest training part of a series" in refusal(tmp_path, only_short, series="s")


def test_series_of_another_step_and_rows_without_a_series_are_refused(tmp_path: Path) -> None:
    text = several(a=(60, "2026-01-01")).splitlines()
    days = [f"2026-01-{day:02d},b,{value}" for day, value in zip(range(1, 21), waves(20), strict=True)]
    line = refusal(tmp_path, "\n".join([*text, *days]), series="s")
    assert "of the series 'b'" in line and "come after 1 day, but most rows of the table after 1 hour" in line
    assert "line 62, column 's': there is no series" in refusal(
        tmp_path, "\n".join([*text, "2026-01-09 00:00:00,,1"]), series="s"
    )


def test_parts_that_are_too_short_are_refused(tmp_path: Path) -> None:
    def line(**changes: Any) -> str:
        return refusal(tmp_path, table(hourly(40), waves(40)), **changes)

    assert "needs 31; lower it" in line(season=30)
    assert "data.lookback (30) and data.horizon (2) need 32" in line(lookback=30)
    assert "the test part (data.test_fraction 0.04) has 2 rows, but data.horizon needs 3" in line(
        horizon=3, test_fraction=0.04
    )
    assert "the validation part (data.valid_fraction 0.04)" in line(horizon=3, valid_fraction=0.04)
    assert "the training part has 1 windows" in line(lookback=22)


def test_a_series_that_repeats_itself_needs_another_season(tmp_path: Path) -> None:
    y = [float(np.sin(2 * np.pi * (hour % 24) / 24)) for hour in range(200)]
    assert "repeats itself exactly after 24 rows (data.season)" in refusal(
        tmp_path, table(hourly(200), y), season="auto"
    )
    assert prepared(tmp_path, table(hourly(200), y)).card.season == 1


def test_usual_seasons(tmp_path: Path) -> None:
    for step, season in (
        (Step(unit="seconds", count=3600), 24),
        (Step(unit="seconds", count=900), 96),
        (Step(unit="seconds", count=60), 1440),
        (Step(unit="seconds", count=86_400), 7),
        (Step(unit="seconds", count=7 * 86_400), 52),
        (Step(unit="months", count=1), 12),
        (Step(unit="months", count=3), 4),
        (Step(unit="months", count=12), 1),
        (Step(unit="seconds", count=7), 1),
        (Step(unit="seconds", count=5 * 3600), 1),
    ):
        assert usual_season(step) == season
    made = prepared(tmp_path, table(hourly(60), waves(60)), season="auto")
    assert made.card.season == 1 and "shorter than two seasons of 24 rows" in made.card.notices()[0]
