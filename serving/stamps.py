"""Times of a series: whether they follow each other by one step, and how they go on.

Months, and whole days where there is a zone, are steps of the calendar: the time of day stays. All other steps are
seconds that pass, so that the clock jumps when daylight saving begins or ends. A time of the zone that occurs twice is the
first or the second one by its place in the series.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

from serving.errors import RequestError

LONGEST = 40  # characters of a time
DAY = 86_400
_UNITS = ((DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_DATE = len("2026-01-31")
UNIX = "unix"  # seconds since 1970, in UTC
_PERIOD = re.compile(r"(\d{4})(?:-?Q([1-4])|-(\d\d))?", re.ASCII)
Place = Callable[[int], str]  # the number of a row, from 0 -> how a sentence about its time begins
# The number of a row -> what its time may be: an instant in UTC, or two; without zone and offset, a time of any clock.
_Course = Callable[[int], Sequence[datetime]]


@dataclass(frozen=True)
class Step:
    """The time from one row to the next."""

    unit: Literal["seconds", "months"]
    count: int

    def in_words(self) -> str:
        """``1 hour``, ``3 months``."""
        size, name = 1, "month"
        if self.unit == "seconds":
            size, name = next(unit for unit in _UNITS if self.count % unit[0] == 0)
        count = self.count // size
        return f"{count} {name}{'' if count == 1 else 's'}"

    def whole_days(self) -> bool:
        """Whether the time of day stays the same."""
        return self.unit == "months" or self.count % DAY == 0


@dataclass(frozen=True)
class Times:
    """The times of a series, and those after them."""

    given: int  # number of times that there are
    course: _Course
    write: Callable[[datetime], str]

    def told(self, start: int, end: int) -> list[str]:
        """Times by their numbers: from 0 those that there are, then those after them."""
        return [self.write(self.course(number)[0]) for number in range(start, end)]


@dataclass(frozen=True)
class Clock:
    """How the times of a network's series go on."""

    step: Step
    zone: ZoneInfo | None  # of times without an offset from UTC, and of all times that are answered
    form: str | None = None  # of times besides ISO 8601: one of strptime's, or UNIX

    def go_on(self, texts: Sequence[str], ahead: int, place: Place) -> Times:
        """Reads times, and goes on with as many as ``ahead``.

        Raises RequestError if they are no times, or not one step apart.
        """
        times = self._read(texts, place)
        # The times are told in the zone, otherwise with the last offset that was given.
        own = self.zone or times[-1].tzinfo
        write = self._writer(texts, times[0], own)
        try:
            meant, courses = self._meant(times, own), self._courses(times, own)
            fits = [_first_unlike(meant, course) for course in courses]
            number = max(fits)
            course = courses[fits.index(number)]
            if number == len(times):
                found = Times(number, course, write)
                found.told(number + ahead - 1, number + ahead)  # the latest time is not too late
                return found
            expected = write(course(number)[0])
        except (OverflowError, ValueError):
            raise RequestError(422, f"{place(0)} leads out of the years 1 to 9999.") from None
        text = texts[number] if texts[number].isprintable() else repr(texts[number])
        if not meant[number]:
            raise RequestError(
                422, f"{place(number)}, {text}, does not exist in {self.zone}, because the clock skips it."
            )
        step = self.step.in_words()
        raise RequestError(
            422,
            f"{place(number)}, {text}, should be {expected}; every row comes {step} after the one before.",
        )

    def _read(self, texts: Sequence[str], place: Place) -> list[datetime]:
        times = [_time(text, self.form, place(number)) for number, text in enumerate(texts)]
        aware = times[0].tzinfo is not None
        for number, time in enumerate(times):
            if (time.tzinfo is not None) is not aware:
                what = "lacks an" if aware else "has an"
                raise RequestError(422, f"{place(number)} {what} offset from UTC, unlike the row before.")
        return times

    def _writer(self, texts: Sequence[str], first: datetime, own: tzinfo | None) -> Callable[[datetime], str]:
        """Writes times as briefly as those that were given."""
        midnights = self.step.whole_days() and first.tzinfo is None and first.time() == datetime.min.time()
        dates = midnights and all(len(text) <= _DATE for text in texts)
        minutes = first.second == first.microsecond == 0 and (
            self.step.whole_days() or self.step.count % 60 == 0
        )

        def write(time: datetime) -> str:
            shown = time if own is None else time.astimezone(own)
            return (
                shown.date().isoformat()
                if dates
                else shown.isoformat(timespec="minutes" if minutes else "auto")
            )

        return write

    def _by_calendar(self) -> bool:
        return self.step.unit == "months" or (self.step.whole_days() and self.zone is not None)

    def _meant(self, times: Sequence[datetime], own: tzinfo | None) -> list[Sequence[datetime]]:
        """What each time may mean: nothing where the clocks of the zone skip it."""
        meant = [_instants(time, own) for time in times]
        if self.zone is None or times[0].tzinfo is not None or self._by_calendar():
            return meant  # a midnight that is skipped is the beginning of its day all the same
        return [
            [instant for instant in instants if _wall(instant, own) == time]
            for time, instants in zip(times, meant, strict=True)
        ]

    def _courses(self, times: Sequence[datetime], own: tzinfo | None) -> list[_Course]:
        """The courses that begin with the first time."""
        courses: list[_Course] = []
        if self._by_calendar():
            walls = [_wall(time, own) for time in times]
            on_wall = self._by_months(walls) if self.step.unit == "months" else self._by_seconds(walls[0])
            courses = [lambda number: _instants(on_wall(number)[0], own)]
        if self.step.unit == "seconds":  # also days of 24 hours, if those of the calendar fit less
            courses += [self._by_seconds(start) for start in _instants(times[0], own)]
        return courses

    def _by_seconds(self, start: datetime) -> _Course:
        step = timedelta(seconds=self.step.count)
        return lambda number: [start + number * step]

    def _by_months(self, walls: Sequence[datetime]) -> _Course:
        """The same day of every month, or its last where it has fewer days or all times are on the last."""
        first = walls[0]
        day = first.day
        if day == _days(first.year, first.month):
            last = all(wall.day == _days(wall.year, wall.month) for wall in walls)
            day = 31 if last else max(wall.day for wall in walls)

        def at(number: int) -> Sequence[datetime]:
            years, month = divmod(first.month - 1 + number * self.step.count, 12)
            year = first.year + years
            if year > datetime.max.year:
                raise OverflowError
            return [first.replace(year=year, month=month + 1, day=min(day, _days(year, month + 1)))]

        return at


def _time(text: str, form: str | None, place: str) -> datetime:
    try:
        if len(text) <= LONGEST:
            if form == UNIX:
                return datetime.fromtimestamp(int(text), UTC)
            if period := _PERIOD.fullmatch(text):  # a year, a month or a quarter: its first day
                year, quarter, month = period.groups()
                return datetime(int(year), int(month or 3 * int(quarter or 1) - 2), 1)
            return _in_form(text, form) or datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        pass
    raise RequestError(422, f"{place} must be a time such as 2026-01-31T14:00, got {text!r:.50}.")


def _in_form(text: str, form: str | None) -> datetime | None:
    if form is not None:
        with suppress(ValueError):
            return datetime.strptime(text, form)
    return None


def _days(year: int, month: int) -> int:
    return monthrange(year, month)[1]


def _wall(time: datetime, own: tzinfo | None) -> datetime:
    """What a clock on the wall shows."""
    return time if time.tzinfo is None else time.astimezone(own).replace(tzinfo=None, fold=0)


def _instants(time: datetime, own: tzinfo | None) -> Sequence[datetime]:
    """What a time may mean, in UTC: two instants where the clock shows it twice."""
    if time.tzinfo is not None:
        return [time.astimezone(UTC)]
    if own is None:
        return [time]
    found = [time.replace(tzinfo=own, fold=fold).astimezone(UTC) for fold in (0, 1)]
    return found[:1] if found[0] == found[1] else found


def _first_unlike(meant: Sequence[Sequence[datetime]], course: _Course) -> int:
    """The number of the first row that leaves the course; the number of rows if none does."""
    for number, instants in enumerate(meant):
        if not any(instant in course(number) for instant in instants):
            return number
    return len(meant)
