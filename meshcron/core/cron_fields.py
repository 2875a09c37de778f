"""What the five or six fields of a cron expression mean, and what of it croniter is asked.

The calendar is croniter's to compute (in `schedule.py`), on patterns that avoid all of its own readings: `7-7` as
every minute, `*/1` as restricted, equal and wrapped ranges, `R`, `#` beside another day field, and `L` beside days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The longest February and month: a day of month above it never comes.
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


@dataclass(frozen=True, slots=True)
class Field:
    """A field's name and numbers. `top` is the highest number that may be written: 7 is Sunday, too. `names[i]`
    stands for low + i. A plain `H` of days stays at or below `spread_high`, so that no month goes without."""

    noun: str
    low: int
    high: int
    top: int
    spread_high: int
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.high - self.low + 1

    @property
    def hint(self) -> str:
        return f"{self.low}-{self.top}" + (f" or {self.names[0]}-{self.names[-1]}" if self.names else "")


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

SECOND = Field("second", 0, 59, 59, 59)
MINUTE = Field("minute", 0, 59, 59, 59)
HOUR = Field("hour", 0, 23, 23, 23)
DAY = Field("day of month", 1, 31, 31, 28)
MONTH = Field("month", 1, 12, 12, 12, _MONTHS)
WEEKDAY = Field("day of week", 0, 6, 7, 6, _WEEKDAYS)
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True, slots=True)
class Part:
    """One item of a field's list. `text` is its plain spelling, which reads back as the same part.

    `ordinal` is the n of `FRI#n`, or `L` for the last: of a weekday in its month, or the last day of the month.
    """

    text: str
    values: tuple[int, ...] = ()
    wildcard: bool = False
    stepped: bool = False
    ordinal: str = ""


@dataclass(frozen=True, slots=True)
class CronFields:
    """What the six fields say, seconds first."""

    second: tuple[Part, ...]
    minute: tuple[Part, ...]
    hour: tuple[Part, ...]
    day: tuple[Part, ...]
    month: tuple[Part, ...]
    weekday: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The plain spelling of all six, `H` resolved: the same meaning in another job and on another agent."""
        fields = (self.second, self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(",".join(part.text for part in field) for field in fields)

    @property
    def fixed_time(self) -> bool:
        """No wildcard and no step in hour or minute. A step that leaves one value is none: `*/24` is hour 0."""
        return not any(part.wildcard or part.stepped for part in self.minute + self.hour)

    def patterns(self) -> tuple[str, ...]:
        """What croniter is to search, seconds last; the earliest of them counts. None of them: never fires.

        Several when day of month and day of week are both restricted, which means either (crontab(5)), and when `L`
        stands beside other days. A field is unrestricted if it holds `*`, `?` or `*/1`; `*/2` and `1-31` restrict, as
        in Dkron.
        """
        by_day, by_weekday = not self.day[0].wildcard, not self.weekday[0].wildcard
        days = [(pattern, "*") for pattern in self._day_patterns()] if by_day or not by_weekday else []
        weekdays = [("*", _weekday_pattern(self.weekday))] if by_weekday else []
        clock = " ".join((_values_pattern(MINUTE, self.minute), _values_pattern(HOUR, self.hour)))
        month, second = _values_pattern(MONTH, self.month), _values_pattern(SECOND, self.second)
        return tuple(f"{clock} {day} {month} {weekday} {second}" for day, weekday in days + weekdays)

    def _day_patterns(self) -> list[str]:
        """The plain days, where a month has one, and `L` apart: croniter counts it as one more day, and takes 31 of
        them for every day, also where one is missing (`2-31,L`)."""
        first = min(_values(self.day), default=DAY.high + 1)
        comes = any(first <= _LONGEST_MONTH.get(month, DAY.high) for month in _values(self.month))
        plain = [_values_pattern(DAY, self.day)] if comes else []
        return plain + ["l"] * any(part.ordinal for part in self.day)


def _values(parts: Sequence[Part]) -> set[int]:
    return {value for part in parts for value in part.values}


def _values_pattern(field: Field, parts: Sequence[Part]) -> str:
    values = _values(parts)
    return "*" if len(values) == field.size else ",".join(map(str, sorted(values)))


def _weekday_pattern(parts: Sequence[Part]) -> str:
    """FRI beside MON#1, which croniter refuses, is spelt out as all five Fridays of the month."""
    nth = [part.text for part in parts if part.ordinal]
    plain = _values([part for part in parts if not part.ordinal])
    if not nth:
        return _values_pattern(WEEKDAY, parts)
    return ",".join(nth + [f"{value}#{count}" for value in sorted(plain) for count in range(1, 6)])
