"""Times become UTC as the clocks of a zone demand, and steps are hours, days with clock changes, or months."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from stages.sequences.data import Step
from tests.stages.sequences.making import hourly, prepared, refusal, table, waves

BERLIN = ZoneInfo("Europe/Berlin")


def moments(start: datetime, step: timedelta, count: int) -> list[datetime]:
    """Moments of UTC."""
    return [start + number * step for number in range(count)]


def clock(moment: datetime, zone: ZoneInfo = BERLIN) -> str:
    """What the clocks of a zone show."""
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(("month", "minutes"), [(3, 60), (10, 60), (3, 15), (10, 15), (10, 30)])
def test_clocks_that_change_leave_no_gap_and_no_doubled_row(tmp_path: Path, month: int, minutes: int) -> None:
    day = datetime(2025, month, 28 if month == 3 else 24, tzinfo=UTC)
    true = moments(day, timedelta(minutes=minutes), 4 * 24 * 60 // minutes)
    made = prepared(tmp_path, table(list(map(clock, true)), waves(len(true))), zone="Europe/Berlin")
    assert made["times"].tolist() == [int(moment.timestamp()) for moment in true]
    assert made.card.step == Step(unit="seconds", count=60 * minutes)
    assert not made.card.filled_rows and made.card.zone == "Europe/Berlin"


def test_doubled_hours_of_several_series_in_one_table(tmp_path: Path) -> None:
    true = moments(datetime(2025, 10, 25, tzinfo=UTC), timedelta(hours=1), 72)
    rows = [
        f"{clock(moment)},{name},{value}"
        for moment, value in zip(true, waves(72), strict=True)
        for name in ("a", "b")
    ]
    made = prepared(tmp_path, "\n".join(["time,s,y", *rows]), series="s", zone="Europe/Berlin")
    assert made["times"].tolist() == 2 * [int(moment.timestamp()) for moment in true]
    assert made.card.series == ["a", "b"]


WRONG_CLOCKS = [
    (["2025-03-30 01:00", "2025-03-30 02:00"], "line 3, .* '2025-03-30 02:00' does not exist in Europe/Berlin"),
    (["2025-10-26 01:00", "2025-10-26 02:00", "2025-10-26 03:00"], "line 3, .* '2025-10-26 02:00' occurs twice in Europe/Berlin"),
]  # fmt: skip


@pytest.mark.parametrize(("times", "said"), WRONG_CLOCKS)
def test_times_that_the_clocks_do_not_show_are_refused(tmp_path: Path, times: list[str], said: str) -> None:
    line = refusal(tmp_path, table(times, waves(len(times))), zone="Europe/Berlin")
    assert re.search(said, line), line


def test_doubled_hours_without_a_zone_are_refused_with_the_remedy(tmp_path: Path) -> None:
    true = moments(datetime(2025, 10, 25, tzinfo=UTC), timedelta(hours=1), 72)
    line = refusal(tmp_path, table(list(map(clock, true)), waves(72)))
    assert "'2025-10-26 02:00' is there twice" in line and "set data.zone if clocks were put back" in line


def test_days_and_months_follow_the_calendar_of_the_zone(tmp_path: Path) -> None:
    for frequency, step in (
        ("D", Step(unit="seconds", count=86_400)),
        ("MS", Step(unit="months", count=1)),
        ("ME", Step(unit="months", count=1)),
        ("QS", Step(unit="months", count=3)),
        ("YS", Step(unit="months", count=12)),
    ):
        days = pd.date_range("2020-01-01", periods=40, freq=frequency)
        lines = [str(day.date()) for day in days]
        for zone in (None, "Europe/Berlin"):
            local = days.tz_localize(zone or "UTC")
            made = prepared(tmp_path, table(lines, waves(40)), zone=zone)
            assert made["times"].tolist() == [int(moment.timestamp()) for moment in local]
            assert made.card.step == step, frequency
            without = [line for number, line in enumerate(lines) if number not in (9, 17, 18)]
            gappy = prepared(tmp_path, table(without, waves(37)), zone=zone)
            np.testing.assert_array_equal(gappy["times"], made["times"])
            assert gappy.card.filled_rows == 3


def test_days_in_a_zone_without_naming_it_are_refused_with_the_remedy(tmp_path: Path) -> None:
    days = pd.date_range("2025-03-01", periods=60, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"time": days, "y": waves(60)})
    frame.to_parquet(tmp_path / "days.parquet", index=False)
    line = refusal(tmp_path, tmp_path / "days.parquet")
    assert "comes 23 hours after the one before" in line and "set data.zone" in line
    made = prepared(tmp_path, tmp_path / "days.parquet", zone="Europe/Berlin")
    assert made.card.step == Step(unit="seconds", count=86_400)


def test_ways_to_write_times(tmp_path: Path) -> None:
    true = moments(datetime(2026, 2, 27, 22, tzinfo=UTC), timedelta(hours=1), 30)
    seconds = [int(moment.timestamp()) for moment in true]
    ways = [
        ({}, "%Y-%m-%dT%H:%M:%SZ", UTC),
        ({}, "%Y-%m-%d %H:%M:%S%z", BERLIN),
        ({}, "%Y%m%dT%H%M", UTC),
        ({"zone": "Europe/Berlin"}, "%Y-%m-%d %H:%M", BERLIN),
        ({"zone": "Europe/Berlin"}, "%Y-%m-%d %H:%M%z", UTC),
        ({"time_format": "%d.%m.%Y %H:%M"}, "%d.%m.%Y %H:%M", UTC),
        ({"time_format": "%d.%m.%Y %H:%M", "zone": "Europe/Berlin"}, "%d.%m.%Y %H:%M", BERLIN),
        ({"time_format": "unix"}, "%s", UTC),
    ]
    for changes, format, zone in ways:
        texts = [
            str(second) if format == "%s" else moment.astimezone(zone).strftime(format)
            for moment, second in zip(true, seconds, strict=True)
        ]
        made = prepared(tmp_path, table(texts, waves(30)), **changes)
        assert made["times"].tolist() == seconds, format
    quarters = [f"{year}Q{quarter}" for year in range(2000, 2010) for quarter in (1, 2, 3, 4)]
    made = prepared(tmp_path, table(quarters, waves(40)))
    assert made.card.step == Step(unit="months", count=3)
    assert made["times"][5] == datetime(2001, 4, 1, tzinfo=UTC).timestamp()
    years = prepared(tmp_path, table([str(year) for year in range(1700, 1740)], waves(40)))
    assert years.card.step.in_words() == "12 months"


def test_a_wrong_format_is_refused(tmp_path: Path) -> None:
    text = table(hourly(30), waves(30))
    assert "does not have the format data.time_format (%d.%m.%Y)" in refusal(
        tmp_path, text, time_format="%d.%m.%Y"
    )
    assert "line 2" in refusal(tmp_path, text, time_format="unix")
    assert "which is no format" in refusal(tmp_path, text, time_format="%Q")


def test_offsets_that_change_are_one_series(tmp_path: Path) -> None:
    """In summer +02:00, in winter +01:00: every time is exact, so that neither a zone nor an order decides anything."""
    true = moments(datetime(2025, 10, 25, tzinfo=UTC), timedelta(hours=1), 72)
    texts = [moment.astimezone(BERLIN).isoformat() for moment in true]
    made = prepared(tmp_path, table(texts, waves(72)))
    assert made["times"].tolist() == [int(moment.timestamp()) for moment in true]
