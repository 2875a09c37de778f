"""What the clocks on the wall show, and when."""

from __future__ import annotations

import importlib.resources
import struct
import zoneinfo
from calendar import timegm
from itertools import pairwise
from pathlib import Path

import pytest

from meshcron.core.wall_clock import DAY_S, WallClock, wall_clock
from meshcron.errors import InvalidSchedule

HOUR_S = 3600


def at(text: str) -> int:
    """`2026-03-29 01:00:00` as an instant, or as a reading."""
    date, _, clock = text.partition(" ")
    year, month, day = map(int, date.split("-"))
    return timegm((year, month, day, *map(int, clock.split(":"))))


def test_an_ordinary_day() -> None:
    """Noon in Berlin in January is eleven in UTC, once."""
    clock = wall_clock("Europe/Berlin")
    reading = at("2026-01-10 12:00:00")
    assert clock.near(reading).instants(reading) == (at("2026-01-10 11:00:00"),)
    assert clock.near(reading).first(reading) == at("2026-01-10 11:00:00")
    assert clock.reading(at("2026-01-10 11:00:00")) == reading
    assert not clock.near(reading).repeats(reading)


def test_the_clock_is_put_forward() -> None:
    """On 29 March 2026 Berlin goes from 01:59:59 to 03:00:00: no instant shows 02:30, the first after it does 03:00."""
    around = wall_clock("Europe/Berlin").near(at("2026-03-29 02:30:00"))
    change = at("2026-03-29 01:00:00")
    assert (around.before, around.after, around.at) == (HOUR_S, 2 * HOUR_S, change)
    assert around.instants(at("2026-03-29 02:30:00")) == ()
    assert around.first(at("2026-03-29 02:30:00")) == change
    assert around.instants(at("2026-03-29 01:59:59")) == (change - 1,)
    assert around.instants(at("2026-03-29 02:00:00")) == ()
    assert around.instants(at("2026-03-29 02:59:59")) == ()
    assert around.instants(at("2026-03-29 03:00:00")) == (change,)


def test_the_clock_is_put_back() -> None:
    """On 25 October 2026 Berlin shows 02:00:00 to 02:59:59 twice."""
    around = wall_clock("Europe/Berlin").near(at("2026-10-25 02:30:00"))
    change = at("2026-10-25 01:00:00")
    assert (around.before, around.after, around.at) == (2 * HOUR_S, HOUR_S, change)
    assert around.instants(at("2026-10-25 02:30:00")) == (change - HOUR_S // 2, change + HOUR_S // 2)
    assert around.instants(at("2026-10-25 01:59:59")) == (change - HOUR_S - 1,)
    assert around.instants(at("2026-10-25 02:00:00")) == (change - HOUR_S, change)
    assert around.instants(at("2026-10-25 03:00:00")) == (change + HOUR_S,)
    twice = ("2026-10-25 02:00:00", "2026-10-25 02:59:59")
    once = ("2026-10-25 01:59:59", "2026-10-25 03:00:00")
    assert [around.repeats(at(reading)) for reading in (*twice, *once)] == [True, True, False, False]


def test_a_day_that_never_was() -> None:
    """Samoa went from 29 to 31 December 2011: a gap of a day, and offsets on both sides of UTC."""
    around = wall_clock("Pacific/Apia").near(at("2011-12-30 12:00:00"))
    change = at("2011-12-30 10:00:00")
    assert (around.before, around.after, around.at) == (-10 * HOUR_S, 14 * HOUR_S, change)
    assert around.instants(at("2011-12-30 12:00:00")) == ()
    assert around.first(at("2011-12-30 00:00:00")) == change
    assert around.instants(at("2011-12-29 23:59:59")) == (change - 1,)
    assert around.instants(at("2011-12-31 00:00:00")) == (change,)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Etc/GMT+12", "America/Argentina/Buenos_Aires", "EST5EDT"])
def test_zones_of_the_database(name: str) -> None:
    """All its spellings are known, and one clock serves all who ask."""
    assert wall_clock(name).name == name
    assert wall_clock(name) is wall_clock(name)


@pytest.mark.parametrize(
    ("name", "why", "hint"),
    [
        ("localtime", "'localtime' does not mean the same on every agent", "a name of the tz database"),
        ("posixrules", "'posixrules' does not mean the same on every agent", "a name of the tz database"),
        ("right/Europe/Berlin", "'right/Europe/Berlin' does not mean the same on every agent", "a name of the tz"),
        ("europe/berlin", "no time zone is called 'europe/berlin'", "did you mean Europe/Berlin?"),
        ("utc", "no time zone is called 'utc'", "did you mean UTC?"),
        ("Local", "no time zone is called 'Local'", "a name of the tz database"),
        ("Europe", "no time zone is called 'Europe'", "a name of the tz database"),
        ("Europe/", "no time zone is called 'Europe/'", "a name of the tz database"),
        ("+02:00", "no time zone is called '+02:00'", "a name of the tz database"),
        ("../../etc/passwd", "no time zone is called '../../etc/passwd'", "a name of the tz database"),
        ("/etc/localtime", "no time zone is called '/etc/localtime'", "a name of the tz database"),
        ("tzdata.zi", "no time zone is called 'tzdata.zi'", "a name of the tz database"),
        ("leapseconds", "no time zone is called 'leapseconds'", "a name of the tz database"),
        ("UTC\0", "no time zone is called 'UTC\\x00'", "a name of the tz database"),
        ("\ud800", "no time zone is called '\\ud800'", "a name of the tz database"),
        ("A" * 10_000, "no time zone is called '" + "A" * 40 + "...'", "a name of the tz database"),
    ],
)
def test_names_that_are_no_zone(name: str, why: str, hint: str) -> None:
    """Refused as the field timezone: names that do not exist, that lead elsewhere, or that each machine has its own
    idea of."""
    with pytest.raises(InvalidSchedule) as refused:
        wall_clock(name)
    assert (refused.value.field, refused.value.why, refused.value.column) == ("timezone", why, 0)
    assert refused.value.hint.startswith(hint)


def changes(name: str) -> list[int]:
    """The instants at which a zone changes its offset, as its TZif file lists them (RFC 8536, version 2 block)."""
    paths = [Path(folder) / name for folder in zoneinfo.TZPATH]
    found = next((path for path in paths if path.is_file()), None)
    data = found.read_bytes() if found else importlib.resources.files("tzdata.zoneinfo").joinpath(name).read_bytes()
    isutc, isstd, leap, times, types, letters = struct.unpack(">6l", data[20:44])
    start = 44 + times * 5 + types * 6 + letters + leap * 8 + isstd + isutc
    *_, times, types, _ = struct.unpack(">6l", data[start + 20 : start + 44])
    instants = struct.unpack(f">{times}q", data[start + 44 : start + 44 + 8 * times])
    kinds = data[start + 44 + 8 * times : start + 44 + 9 * times]
    table = data[start + 44 + 9 * times :]
    offsets = [struct.unpack(">l", table[6 * kind : 6 * kind + 4])[0] for kind in range(types)]
    seen = [offsets[0], *(offsets[kind] for kind in kinds)]
    return [instant for instant, (old, new) in zip(instants, pairwise(seen), strict=True) if old != new]


def test_no_zone_changes_twice_within_two_days() -> None:
    """What WallClock relies on, for every zone of this machine since 1970; the closest known are 6.96 days apart."""
    gaps = {}
    for name in zoneinfo.available_timezones() - {"localtime"}:
        instants = [instant for instant in changes(name) if instant > 0]
        gaps[name] = min((later - earlier for earlier, later in pairwise(instants)), default=10 * DAY_S)
    assert len(gaps) > 400
    assert min(gaps.values()) > 4 * DAY_S


@pytest.mark.parametrize("name", ["Australia/Lord_Howe", "Africa/Casablanca", "Asia/Gaza", "America/Recife"])
def test_every_listed_change_is_found(name: str) -> None:
    """Asked about the reading at a change, the clock names that very second."""
    clock: WallClock = wall_clock(name)
    listed = [instant for instant in changes(name) if instant > 0]
    assert len(listed) > 10
    for instant in listed:
        around = clock.near(clock.reading(instant))
        assert around.at == instant
        assert (around.before, around.after) == (clock.offset(instant - 1), clock.offset(instant))
