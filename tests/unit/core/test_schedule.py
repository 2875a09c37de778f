"""Schedules as the scheduler sees them: ticks forward and back, what is refused, and what is explained."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.core.schedule import Calendar, check_fires, explain, next_n, parse
from meshcron.errors import InvalidSchedule

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


def us(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """`2026-03-29 02:00` on the wall of the zone, in microseconds."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp()) * SECOND_US


def shown(ticks: list[int], zone: str = "UTC") -> list[str]:
    """Ticks as the wall clock of the zone shows them, with the offset."""
    return [datetime.fromtimestamp(tick // SECOND_US, ZoneInfo(zone)).strftime("%m-%d %H:%M:%S%z") for tick in ticks]


# --- cron fields ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("30 * * * *", ["01-01 00:30:00", "01-01 01:30:00", "01-01 02:30:00"]),
        ("0 30 * * * *", ["01-01 00:30:00", "01-01 01:30:00", "01-01 02:30:00"]),
        ("*/20 * * * * *", ["01-01 00:00:20", "01-01 00:00:40", "01-01 00:01:00"]),
        ("7-7 * * * *", ["01-01 00:07:00", "01-01 01:07:00", "01-01 02:07:00"]),
        ("0 0 13 * FRI", ["01-02 00:00:00", "01-09 00:00:00", "01-13 00:00:00"]),
        ("0 0 */1 * FRI", ["01-02 00:00:00", "01-09 00:00:00", "01-16 00:00:00"]),
        ("0 0 13 * ?", ["01-13 00:00:00", "02-13 00:00:00", "03-13 00:00:00"]),
        ("0 0 31 2 MON", ["02-02 00:00:00", "02-09 00:00:00", "02-16 00:00:00"]),
        ("0 0 L * *", ["01-31 00:00:00", "02-28 00:00:00", "03-31 00:00:00"]),
        ("0 0 * * L5", ["01-30 00:00:00", "02-27 00:00:00", "03-27 00:00:00"]),
        ("0 0 * * FRI#2,MON", ["01-05 00:00:00", "01-09 00:00:00", "01-12 00:00:00"]),
        ("0 0 13 * FRI#2", ["01-09 00:00:00", "01-13 00:00:00", "02-13 00:00:00"]),
        ("0 0 * * 7", ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00"]),
        ("@minutely", ["01-01 00:01:00", "01-01 00:02:00", "01-01 00:03:00"]),
        ("@hourly", ["01-01 01:00:00", "01-01 02:00:00", "01-01 03:00:00"]),
        ("@daily", ["01-02 00:00:00", "01-03 00:00:00", "01-04 00:00:00"]),
        ("@midnight", ["01-02 00:00:00", "01-03 00:00:00", "01-04 00:00:00"]),
        ("@weekly", ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00"]),
        ("@monthly", ["02-01 00:00:00", "03-01 00:00:00", "04-01 00:00:00"]),
        ("@Every 90s", ["01-01 00:01:30", "01-01 00:03:00", "01-01 00:04:30"]),
        ("TZ=Asia/Tokyo 0 0 * * *", ["01-01 15:00:00", "01-02 15:00:00", "01-03 15:00:00"]),
        ("  CRON_TZ=Asia/Tokyo\t@daily ", ["01-01 15:00:00", "01-02 15:00:00", "01-03 15:00:00"]),
    ],
)
def test_the_next_three_ticks_of_2026(text: str, ticks: list[str]) -> None:
    """From midnight of New Year, a Thursday, itself not included, in UTC."""
    start = us("2026-01-01 00:00")
    assert shown(next_n(parse(text, anchor_us=start), start, 3)) == [f"{tick}+0000" for tick in ticks]


def test_yearly_and_leap_days() -> None:
    """The rare ones: next year, the next leap year, and past 2100, which is none."""
    assert parse("@yearly").next_after(us("2026-01-01 00:00")) == us("2027-01-01 00:00")
    assert parse("@annually").next_after(us("2026-01-01 00:00")) == us("2027-01-01 00:00")
    assert parse("0 0 29 2 *").next_after(us("2026-01-01 00:00")) == us("2028-02-29 00:00")
    assert parse("0 0 29 2 *").next_after(us("2096-02-29 00:00")) == us("2104-02-29 00:00")
    assert parse("0 0 * 2 MON#5").next_after(us("2072-02-29 00:00")) == us("2112-02-29 00:00")


def test_strictly_after_and_up_to() -> None:
    """A tick is not after itself but is up to itself; parts of a second do not matter."""
    daily, noon = parse("0 12 * * *"), us("2026-06-01 12:00")
    assert daily.next_after(noon - 1) == noon
    assert daily.next_after(noon) == daily.next_after(noon + 999_999) == noon + DAY_US
    assert daily.latest_before(noon, 0) == daily.latest_before(noon + 999_999, 0) == noon
    assert daily.latest_before(noon - 1, 0) == noon - DAY_US
    assert daily.latest_before(noon, noon) is None
    assert daily.latest_before(noon, noon - 1) == noon
    assert daily.latest_before(noon, noon + 1) is None
    assert daily.latest_before(noon + DAY_US - 1, noon) is None


@pytest.mark.parametrize("text", ["0 0 * * *", "*/5 * * * *", "TZ=Pacific/Apia 0 0 L * *", "TZ=America/Lima 0 0 * * *"])
@pytest.mark.parametrize("instant", [-(10**30), -1, 0, 1, us("9899-12-31 23:59"), us("9950-01-01 00:00"), 10**30])
def test_the_ends_of_time(text: str, instant: int) -> None:
    """Any number may be asked about: ticks are from 1970 on and before 9900, and rise."""
    schedule = parse(text)
    tick = schedule.next_after(instant)
    assert tick is None or max(instant, -1) < tick < us("9900-01-01 00:00")
    assert (tick is None) == (instant >= us("9899-12-31 23:59"))
    latest = schedule.latest_before(instant, -(10**30))
    assert latest is None or 0 <= latest <= instant
    assert latest is None if instant < 0 else latest is not None or instant < us("1970-01-02 00:00")


def test_counting_walks_no_further_than_it_may() -> None:
    """A day has 288 times five minutes: told if 288 may be walked, else not."""
    schedule, start = parse("*/5 * * * *"), us("2026-06-01 00:00")
    assert schedule.count_between(start, start + DAY_US, 288) == 288
    assert schedule.count_between(start, start + DAY_US, 287) is None
    assert schedule.count_between(start - 1, start, 1) == 1
    assert schedule.count_between(start, start, 1) == 0
    assert schedule.count_between(start + DAY_US, start, 1) == 0
    with patch.object(Calendar, "next", autospec=True, side_effect=Calendar.next) as asked:
        later = start + 5000 * DAY_US  # nobody has asked for a tick there yet, so nothing is remembered
        assert schedule.count_between(later, later + 1000 * DAY_US, 10) is None
    assert asked.call_count == 11


def test_one_schedule_may_be_asked_by_several_threads() -> None:
    """The searches of two threads over one expression do not disturb each other."""
    schedule, start = parse("*/5 * * * *"), us("2026-06-01 00:00")

    def walk(offset: int) -> list[int]:
        return next_n(schedule, start + offset * DAY_US, 500)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(walk, range(8))) == [walk(offset) for offset in range(8)]


def test_a_schedule_is_a_value() -> None:
    """Read twice it is equal, and nobody can change it."""
    assert parse("H 3 * * *", name="a") == parse("H 3 * * *", name="a")
    assert parse("H H * * *", name="a") != parse("H H * * *", name="b")
    with pytest.raises(AttributeError):
        parse("@daily").timezone = "Europe/Berlin"  # type: ignore[misc]


# --- clocks that change -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "start", "ticks"),
    [
        # a fixed time in the gap: at its end, and the day before and after as ever
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 00:00", ["03-28 02:30:00+0100", "03-29 03:00:00+0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 03:00", ["03-30 02:30:00+0200", "03-31 02:30:00+0200"]),
        # several slots in the gap, and one where it ends: one tick
        ("15,45 2 * * *", "America/New_York", "2026-03-08 00:00", ["03-08 03:00:00-0400", "03-09 02:15:00-0400"]),
        ("0 2,3 * * *", "America/New_York", "2026-03-08 00:00", ["03-08 03:00:00-0400", "03-09 02:00:00-0400"]),
        ("* 30 2 * * *", "Europe/Berlin", "2026-03-29 00:00", ["03-29 03:00:00+0200", "03-30 02:30:00+0200"]),
        # midnight is in the gap: the day's run is at one
        ("@daily", "America/Havana", "2026-03-07 12:00", ["03-08 01:00:00-0400", "03-09 00:00:00-0400"]),
        # half an hour
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04 00:00", ["10-04 02:30:00+1100", "10-05 02:15:00+1100"]),
        # a day that never was: 29th, then 31st at midnight for the 30th, then the 31st's own
        ("0 9 * * *", "Pacific/Apia", "2011-12-29 08:00", ["12-29 09:00:00-1000", "12-31 00:00:00+1400"]),
        ("0 9 * * *", "Pacific/Apia", "2011-12-31 00:00", ["12-31 09:00:00+1400", "01-01 09:00:00+1400"]),
        # real time does not run for what no clock showed
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28 02:30", ["03-30 02:00:00+0200", "03-30 02:30:00+0200"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29 01:00", ["03-29 01:30:00+0100", "03-29 03:00:00+0200"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-03-29 00:00", ["03-29 04:00:00+0200", "03-29 06:00:00+0200"]),
        # a fixed time that is shown twice: the first
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:00", ["10-25 02:30:00+0200", "10-26 02:30:00+0100"]),
        ("0,30 1 * * *", "America/New_York", "2026-11-01 01:00", ["11-01 01:30:00-0400", "11-02 01:00:00-0500"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05 00:00", ["04-05 01:45:00+1100", "04-06 01:45:00+1030"]),
        # real time: both
        ("30 * * * *", "Europe/Berlin", "2026-10-25 02:00", ["10-25 02:30:00+0200", "10-25 02:30:00+0100"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25 02:30", ["10-25 02:00:00+0100", "10-25 02:30:00+0100"]),
        ("@hourly", "Australia/Lord_Howe", "2026-04-05 00:30", ["04-05 01:00:00+1100", "04-05 02:00:00+1030"]),
    ],
)
def test_ticks_around_a_change(text: str, zone: str, start: str, ticks: list[str]) -> None:
    """The two rules of docs/SCHEDULES.md, from `start` on the wall, its first pass."""
    assert shown(next_n(parse(text, timezone=zone), us(start, zone), 2), zone) == ticks


def test_a_fixed_time_on_the_second_pass() -> None:
    """A new leader that starts at 02:10 for the second time does not run 02:30 again, and finds that it has run."""
    schedule = parse("30 2 * * *", timezone="Europe/Berlin")
    again, first = us("2026-10-25 02:10", "Europe/Berlin", fold=1), us("2026-10-25 02:30", "Europe/Berlin")
    assert schedule.next_after(again) == us("2026-10-26 02:30", "Europe/Berlin")
    assert schedule.latest_before(again, 0) == first


# --- the other forms --------------------------------------------------------------------------------------------------


def test_every_counts_from_its_anchor() -> None:
    """Whole periods from the creation, floored to its second: nothing moves them, and a clock that stepped back behind
    the creation goes on with them."""
    anchor = us("2026-06-01 10:00") + 10 * SECOND_US
    schedule = parse("@every 1h30m", anchor_us=anchor + 654_321)
    first, period = anchor + 5400 * SECOND_US, 5400 * SECOND_US
    assert schedule.next_after(anchor) == schedule.next_after(first - 1) == first
    assert schedule.next_after(anchor - 1) == anchor
    assert schedule.next_after(anchor - period - 1) == anchor - period
    assert schedule.next_after(first) == first + period
    assert schedule.latest_before(first - 1, anchor) is None
    assert schedule.latest_before(first, 0) == first
    assert schedule.latest_before(first + 10 * period - 1, first) == first + 9 * period
    assert schedule.latest_before(first + period - 1, first) is None
    assert schedule.count_between(anchor, first + 10**9 * period, 1) == 10**9 + 1
    assert schedule.count_between(first, first + 5 * period, 1) == 5
    assert schedule.count_between(first + period, first, 1) == 0
    assert schedule.count_between(anchor, first - 1, 1) == 0
    assert (schedule.kind, schedule.follows_wall_clock) == ("every", False)


@given(
    period=st.integers(1, 100_000),
    anchor=st.integers(0, 2 * 10**15),
    after=st.integers(-(10**13), 10**13),
    span=st.integers(0, 10**11),
)
@settings(max_examples=200, database=None)
def test_every_is_consistent(period: int, anchor: int, after: int, span: int) -> None:
    """Forward, backward and the count tell the same story, wherever the anchor lies."""
    schedule, after = parse(f"@every {period}s", anchor_us=anchor), anchor + after
    upto = after + span
    count, first = schedule.count_between(after, upto, 1), schedule.next_after(after)
    last = schedule.latest_before(upto, after)
    assert count is not None
    assert first is not None
    assert first > after
    assert (count == 0) == (last is None) == (first > upto)
    if last is not None:
        assert after < last <= upto
        assert last - first == (count - 1) * period * SECOND_US
        assert schedule.next_after(last) == last + period * SECOND_US > upto


def test_at_ticks_once() -> None:
    """Before its time it is next, from then on it is the latest; the zone is in the text."""
    schedule, at_us = parse("@at 2026-06-01T12:00:00+02:00", timezone="Asia/Tokyo"), us("2026-06-01 10:00")
    assert (schedule.next_after(at_us - 1), schedule.next_after(at_us)) == (at_us, None)
    assert (schedule.latest_before(at_us - 1, 0), schedule.latest_before(at_us + DAY_US, 0)) == (None, at_us)
    assert schedule.latest_before(at_us + DAY_US, at_us) is None
    assert schedule.count_between(0, at_us, 5) == 1
    assert schedule.count_between(at_us, at_us + DAY_US, 5) == 0
    assert (schedule.kind, schedule.follows_wall_clock) == ("at", True)


@pytest.mark.parametrize(("text", "kind"), [("@manually", "manual"), ("@reboot", "reboot")])
def test_what_time_does_not_start(text: str, kind: str) -> None:
    """No tick, ever, and that is no fault."""
    schedule = parse(text)
    assert (schedule.kind, schedule.next_after(0), schedule.latest_before(10**18, 0)) == (kind, None, None)
    assert schedule.count_between(0, 10**18, 0) == 0
    check_fires(schedule, 0)


# --- zones ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "timezone", "zone"),
    [
        ("@daily", "", "UTC"),
        ("@daily", "Asia/Tokyo", "Asia/Tokyo"),
        ("TZ=Asia/Tokyo @daily", "", "Asia/Tokyo"),
        ("CRON_TZ=Asia/Tokyo @daily", "Asia/Tokyo", "Asia/Tokyo"),
        ("TZ=Asia/Tokyo @every 1h", "", "Asia/Tokyo"),
        ("@manually", "Asia/Tokyo", "Asia/Tokyo"),
    ],
)
def test_where_the_zone_comes_from(text: str, timezone: str, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix, the field, or UTC: never the machine's own zone. The text is kept as it was given."""
    monkeypatch.setenv("TZ", "America/New_York")
    schedule = parse(text, timezone=timezone)
    assert (schedule.timezone, schedule.text) == (zone, text)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("", 1, "the schedule is empty"),
        (" \t ", 4, "the schedule is empty"),
        ("TZ=UTC", 7, "the schedule is empty"),
        ("x" * 257, 257, "a schedule has at most 256 characters"),
        ("0 0 * * *\n", 10, "the character '\\n' has no place in a schedule"),
        ("0 0 * *\u00a0*", 8, "the character '\\xa0' has no place in a schedule"),
        ("0 0 * * \ud800", 9, "the character '\\ud800' has no place in a schedule"),
        ("0 0 * * \0", 9, "the character '\\x00' has no place in a schedule"),
        ("60 * * * *", 1, "minute 60 is above 59"),
        ("  TZ=UTC  60 * * * *", 11, "minute 60 is above 59"),
        ("TZ= 0 0 * * *", 4, "the name of the time zone is missing"),
        ("TZ=Europe/Paradise 0 0 * * *", 4, "no time zone is called 'Europe/Paradise'"),
        ("CRON_TZ=localtime 0 0 * * *", 9, "'localtime' does not mean the same on every agent"),
        ("tz=UTC 0 0 * * *", 1, "'tz=UTC' is no second"),
        ("TZ=UTC TZ=UTC 0 0 * * *", 8, "'TZ=UTC' is no second"),
        ("@", 1, "@ is not known here"),
        ("@dayly", 1, "@dayly is not known here"),
        ("@daily 5", 8, "nothing may follow @daily"),
        ("@reboot\tnow", 9, "nothing may follow @reboot"),
        ("@every", 7, "the duration is missing"),
        ("TZ=UTC @every 1h 30m", 17, "a number is missing in the duration"),
        ("@every 500ms", 8, "500ms is less than one second"),
        ("@at", 4, "the time is missing"),
        ("@at tomorrow", 5, "'tomorrow' is no time"),
        ("@at 2026-02-30T00:00:00Z", 13, "day 30 is not 1-28"),
        ("H * * * *", 1, "H spreads jobs by their names, and there is no name here"),
    ],
)
def test_refused_texts(text: str, column: int, why: str) -> None:
    """The column counts from 1 in the text as given, with its prefix and its blanks."""
    with pytest.raises(InvalidSchedule) as refused:
        parse(text)
    assert (refused.value.field, refused.value.column, refused.value.why) == ("schedule", column, why)


def test_a_wrong_zone_of_the_job() -> None:
    """Beside the text, the fault is the field timezone's; two zones that differ are the text's."""
    with pytest.raises(InvalidSchedule) as refused:
        parse("0 0 * * *", timezone="Europe/Paradise")
    assert (refused.value.field, refused.value.column) == ("timezone", 0)
    with pytest.raises(InvalidSchedule) as refused:
        parse("TZ=Asia/Tokyo 0 0 * * *", timezone="Europe/Berlin")
    assert (refused.value.field, refused.value.column) == ("schedule", 4)
    assert refused.value.why == "the time zone Asia/Tokyo is not the job's, Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 0 30 2 *", "never fires: no month of it has such a day"),
        ("0 0 31 4,6,9,11 *", "never fires: no month of it has such a day"),
        ("TZ=America/New_York */10 2 * 3 SUN#2", "never fires: the clocks of America/New_York always skip the time"),
        ("@at 2020-01-01T00:00:00Z", "the time has passed"),
        ("@at 2026-06-01T00:00:00Z", "the time has passed"),
    ],
)
def test_what_never_fires(text: str, why: str) -> None:
    """Read without complaint, refused by the check, as of 1 June 2026."""
    schedule = parse(text)
    with pytest.raises(InvalidSchedule) as refused:
        check_fires(schedule, us("2026-06-01 00:00"))
    assert (refused.value.field, refused.value.column, refused.value.why) == ("schedule", 0, why)


@pytest.mark.parametrize(
    "text", ["0 0 29 2 *", "0 0 31 2 MON", "0 0 * 2 MON#5", "0 0 L 2 *", "30 2 * 3 SUN#2", "@every 36525d", "@daily"]
)
def test_what_fires_though_rarely(text: str) -> None:
    """Once in 28 years is not never."""
    check_fires(parse(text, timezone="America/New_York"), us("2026-06-01 00:00"))


# --- for people -------------------------------------------------------------------------------------------------------


def test_explained() -> None:
    """All that a page needs to show before one saves; `H` as the number it became."""
    start = us("2026-03-28 12:00", "Europe/Berlin")
    explained = explain(parse("TZ=Europe/Berlin 30 2 * * *"), start)
    assert explained.words == "At 02:30"
    assert shown(list(explained.next_us[:2]), "Europe/Berlin") == ["03-29 03:00:00+0200", "03-30 02:30:00+0200"]
    assert len(explained.next_us) == 5
    assert (explained.timezone, explained.kind, explained.follows_wall_clock) == ("Europe/Berlin", "cron", True)
    assert explained.expression == "0 30 2 * * *"
    assert explain(parse("H 3 * * *", name="backup"), start).expression == "0 2 3 * * *"


@pytest.mark.parametrize(
    ("text", "said", "ticks"),
    [
        ("@daily", "At 00:00", 5),
        ("@every 1h30m", "Every 1 hour 30 minutes", 5),
        ("TZ=UTC  @at  2030-01-31 18:00:00Z ", "Once, at 2030-01-31 18:00:00Z", 1),
        ("@at 2020-01-31T18:00:00Z", "Once, at 2020-01-31T18:00:00Z", 0),
        ("@manually", "Only when asked to", 0),
        ("@reboot", "When an agent starts, on that agent", 0),
    ],
)
def test_in_words(text: str, said: str, ticks: int) -> None:
    """Every form says what it is, and as many of its next ticks as there are."""
    explained = explain(parse(text), us("2026-06-01 00:00"))
    assert (explained.words, len(explained.next_us)) == (said, ticks)


def test_what_was_read_once_is_read_for_the_right_job() -> None:
    """Jobs of one text share what it means, unless `H` makes it another for each name."""
    assert parse("0 3 * * *", name="a") is parse("0 3 * * *", name="b")
    assert parse("H H * * *", name="a") == parse("H H * * *", name="a")
    assert parse("H H * * *", name="a") != parse("H H * * *", name="b")
    assert parse("0 3 * * *", timezone="Europe/Berlin").timezone == "Europe/Berlin"
