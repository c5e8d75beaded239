"""Times of a series go on as pandas says, over ends of months and daylight saving, or a sentence says where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from serving.errors import RequestError
from serving.stamps import Clock, Step

HOUR, DAY = 3600, 86_400
# Skipped and repeated hours; a midnight that is skipped; half an hour of daylight saving; none.
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "Asia/Kolkata")


def place(number: int) -> str:
    return f"Row {number + 1}, column time"


def gone_on(step: Step, zone: str | None, texts: Sequence[str], ahead: int) -> list[str]:
    return told(Clock(step, None if zone is None else ZoneInfo(zone)), texts, ahead)


def told(clock: Clock, texts: Sequence[str], ahead: int) -> list[str]:
    return clock.go_on(texts, ahead, place).told(0, len(texts) + ahead)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("seconds", [900, HOUR, 6 * HOUR])
@pytest.mark.parametrize("offsets", [False, True], ids=["local", "offsets"])
def test_hours_pass_evenly_over_daylight_saving(zone: str, seconds: int, offsets: bool) -> None:
    rng = np.random.default_rng(0)
    changes = pd.date_range("2026-01-01", "2027-01-01", freq="h", tz=zone)
    changes = changes[1:][np.diff([moment.utcoffset() for moment in changes]) != pd.Timedelta(0)]
    starts = [*changes, pd.Timestamp("2026-06-01", tz=zone)]
    for middle in starts:
        for _ in range(10):
            start = middle - int(rng.integers(1, 12)) * pd.Timedelta(seconds=seconds)
            expected = pd.date_range(start, periods=30, freq=pd.Timedelta(seconds=seconds))
            given = [
                moment.isoformat() if offsets else moment.tz_localize(None).isoformat()
                for moment in expected[:14]
            ]
            got = gone_on(Step("seconds", seconds), zone, given, 16)
            assert [datetime.fromisoformat(text).timestamp() for text in got] == [
                moment.timestamp() for moment in expected
            ]
            assert got == [moment.isoformat(timespec="minutes") for moment in expected]


@pytest.mark.parametrize("zone", ZONES)
def test_days_keep_the_time_of_day_in_their_zone(zone: str) -> None:
    walls = pd.date_range("2026-01-01", "2026-12-31", freq="D")
    expected = walls.tz_localize(zone, nonexistent="shift_forward")
    step, dates = Step("seconds", DAY), [str(wall.date()) for wall in walls]
    for start in range(0, 300, 7):
        part = slice(start, start + 40)
        assert gone_on(step, zone, dates[part][:10], 30) == dates[part]
        given = [moment.isoformat() for moment in expected[part][:10]]
        answered = gone_on(
            step, zone, [moment.tz_convert("UTC").isoformat() for moment in expected[part][:10]], 30
        )
        assert (
            answered
            == gone_on(step, zone, given, 30)
            == [moment.isoformat(timespec="minutes") for moment in expected[part]]
        )


@pytest.mark.parametrize("months", [1, 2, 3, 12])
@pytest.mark.parametrize("start", ["2023-01-31", "2023-01-30", "2023-01-29", "2023-02-01", "2023-03-15"])
def test_months_are_those_of_pandas(months: int, start: str) -> None:
    first = pd.Timestamp(start)
    expected = [str((first + pd.DateOffset(months=months * number)).date()) for number in range(40)]
    assert gone_on(Step("months", months), None, expected[:12], 28) == expected


@pytest.mark.parametrize("months", [1, 3, 12])
@pytest.mark.parametrize("first", ["2023-02-28", "2024-02-29", "2023-04-30", "2023-06-30", "2023-12-31"])
def test_ends_of_months_stay_ends(months: int, first: str) -> None:
    expected = [str(day.date()) for day in pd.date_range(first, periods=30, freq=pd.offsets.MonthEnd(months))]
    assert gone_on(Step("months", months), None, expected[:6], 24) == expected


def test_times_are_written_as_briefly_as_they_were_given() -> None:
    hour = Step("seconds", HOUR)
    assert gone_on(hour, None, ["2026-01-01 00:00:00", "2026-01-01 01:00:00"], 0)[1] == "2026-01-01T01:00"
    assert gone_on(hour, None, ["20260101T000030", "20260101T010030"], 1)[2] == "2026-01-01T02:00:30"
    assert (
        gone_on(hour, None, ["2026-01-01T00:00:00.25", "2026-01-01T01:00:00.25"], 1)[2]
        == "2026-01-01T02:00:00.250000"
    )
    # Without a zone, offsets stay, and instants count.
    mixed = ["2026-01-01T00:00+01:00", "2026-01-01T02:00+02:00"]
    assert gone_on(hour, None, mixed, 1) == [f"2026-01-01T0{number}:00+02:00" for number in (1, 2, 3)]
    assert (
        gone_on(Step("months", 1), None, ["2026-01-31T00:00Z", "2026-02-28T00:00Z"], 1)[2]
        == "2026-03-31T00:00+00:00"
    )
    assert Step("seconds", 5400).in_words() == "90 minutes" and Step("months", 1).in_words() == "1 month"


WRONG = {
    "skipped": (HOUR, "Europe/Berlin", ["2026-03-29T01:00", "2026-03-29T02:00"],
        "Row 2, column time, 2026-03-29T02:00, does not exist in Europe/Berlin, because the clock skips it."),
    "three times": (HOUR, "Europe/Berlin", ["2026-10-25T02:00"] * 3,
        "Row 3, column time, 2026-10-25T02:00, should be 2026-10-25T03:00+01:00; every row comes 1 hour after the one before."),
    "backwards": (HOUR, None, ["2026-03-29T01:00", "2026-03-29T00:00"],
        "Row 2, column time, 2026-03-29T00:00, should be 2026-03-29T02:00; every row comes 1 hour after the one before."),
    "a line break": (HOUR, None, ["2026-03-29T01:00", "2026-03-29\n03:00"],
        "Row 2, column time, '2026-03-29\\n03:00', should be 2026-03-29T02:00; every row comes 1 hour after the one before."),
    "a missing day": (DAY, "Europe/Berlin", ["2026-03-28", "2026-03-30"],
        "Row 2, column time, 2026-03-30, should be 2026-03-29; every row comes 1 day after the one before."),
    "local, then not": (HOUR, None, ["2026-03-29T01:00", "2026-03-29T02:00Z"],
        "Row 2, column time has an offset from UTC, unlike the row before."),
    "not local, then local": (HOUR, None, ["2026-03-29T01:00Z", "2026-03-29T02:00"],
        "Row 2, column time lacks an offset from UTC, unlike the row before."),
    "the last year": (HOUR, None, ["9999-12-31T22:00", "9999-12-31T23:00"], "Row 1, column time leads out of the years 1 to 9999."),
    "the first year": (HOUR, "Europe/Berlin", ["0001-01-01T00:00"], "Row 1, column time leads out of the years 1 to 9999."),
    "an endless step": (10**15, None, ["2026-01-01T00:00"], "Row 1, column time leads out of the years 1 to 9999."),
    "empty": (HOUR, None, [""], "Row 1, column time must be a time such as 2026-01-31T14:00, got ''."),
    "another order": (HOUR, None, ["31.01.2026"], "Row 1, column time must be a time such as 2026-01-31T14:00, got '31.01.2026'."),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_times_that_do_not_follow_are_refused_in_one_sentence(name: str) -> None:
    seconds, zone, texts, sentence = WRONG[name]
    with pytest.raises(RequestError) as error:
        gone_on(Step("seconds", seconds), zone, texts, 3)
    assert (error.value.status, str(error.value)) == (422, sentence)


@pytest.mark.parametrize(
    ("months", "texts", "sentence"),
    [
        (
            1,
            ["2026-01-15", "2026-02-15", "2026-03-16"],
            "Row 3, column time, 2026-03-16, should be 2026-03-15",
        ),
        (1, ["2026-01-31", "2026-02-27"], "Row 2, column time, 2026-02-27, should be 2026-02-28"),
        (3, ["2026-01-01", "2026-02-01"], "Row 2, column time, 2026-02-01, should be 2026-04-01"),
        (12, ["9998-01-01", "9999-01-01"], "Row 1, column time leads out of the years 1 to 9999."),
    ],
)
def test_months_that_do_not_follow_are_refused(months: int, texts: list[str], sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        gone_on(Step("months", months), None, texts, 3)
    assert str(error.value).startswith(sentence)


def test_days_of_24_hours_in_a_zone_go_on_as_such() -> None:
    expected = [
        str(moment)
        for moment in pd.date_range("2026-03-20T23:00", periods=30, freq="24h", tz="UTC").tz_convert(
            "Europe/Berlin"
        )
    ]
    got = gone_on(Step("seconds", DAY), "Europe/Berlin", expected[:15], 15)
    assert [datetime.fromisoformat(text) for text in got] == [
        datetime.fromisoformat(text) for text in expected
    ]


@pytest.mark.parametrize(
    ("step", "form", "texts", "expected"),
    [
        (Step("months", 1), None, ["2026-11", "2026-12"], "2027-01-01"),
        (Step("months", 3), None, ["2026Q3", "2026-Q4"], "2027-01-01"),
        (Step("months", 12), None, ["2025", "2026"], "2027-01-01"),
        (Step("seconds", DAY), "%d.%m.%Y", ["30.12.2026", "31.12.2026"], "2027-01-01"),
        (Step("seconds", DAY), "%d.%m.%Y", ["2026-12-30", "31.12.2026"], "2027-01-01"),
        (Step("seconds", HOUR), "%d/%m/%y %H.%M", ["31/12/26 22.00", "31/12/26 23.00"], "2027-01-01T00:00"),
        (Step("seconds", HOUR), "%d.%m.%Y %H:%M %z", ["31.12.2026 22:00 +0100", "31.12.2026 23:00 +0100"], "2027-01-01T00:00+01:00"),
        (Step("seconds", HOUR), "unix", ["1798750800", "1798754400"], "2026-12-31T23:00+00:00"),
    ],
)  # fmt: skip
def test_other_forms_of_times_are_answered_in_iso_8601(
    step: Step, form: str | None, texts: list[str], expected: str
) -> None:
    assert told(Clock(step, None, form), texts, 1)[-1] == expected


@pytest.mark.parametrize("text", ["1e9", "99999999999999999999", "", "2026-01-01", "-99999999999999"])
def test_a_number_of_seconds_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Row 1, column time must be a time"):
        Clock(Step("seconds", HOUR), None, "unix").go_on([text], 1, place)


@pytest.mark.parametrize("text", ["2026-13", "2026Q5", "0000", "202", "2026-00", "\u0662\u0660\u0662\u0666"])
def test_a_period_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Row 1, column time must be a time"):
        gone_on(Step("months", 1), None, [text], 1)
